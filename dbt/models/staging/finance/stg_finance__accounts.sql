with source as (
    select * from {{ source('finance', 'accounts') }}
),

renamed as (
    select
        account_id,
        user_id,
        kind,
        name,
        currency,
        opening_balance,
        balance,
        opened_on,
        closed_on,
        closed_on is null as is_open
    from source
)

select * from renamed
