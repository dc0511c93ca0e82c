with source as (
    select * from {{ source('finance', 'transactions') }}
),

renamed as (
    select
        transaction_id,
        account_id,
        merchant_id,
        category_id,
        amount,
        currency,
        description,
        posted_at,
        cast(posted_at at time zone 'UTC' as date) as posted_on
    from source
)

select * from renamed
