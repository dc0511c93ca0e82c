with source as (
    select * from {{ source('finance', 'categories') }}
),

renamed as (
    select
        category_id,
        parent_id,
        name,
        kind
    from source
)

select * from renamed
