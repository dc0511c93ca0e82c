with source as (
    select * from {{ source('finance', 'users') }}
),

renamed as (
    select
        user_id,
        email,
        full_name,
        country,
        created_at,
        note
    from source
)

select * from renamed
