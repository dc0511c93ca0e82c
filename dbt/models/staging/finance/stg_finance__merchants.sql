with source as (
    select * from {{ source('finance', 'merchants') }}
),

renamed as (
    select
        merchant_id,
        name,
        category_id,
        city,
        website
    from source
)

select * from renamed
