with source as (
    select * from {{ source('finance', 'transfers') }}
),

renamed as (
    select
        transfer_id,
        from_account_id,
        to_account_id,
        amount,
        description,
        transferred_at,
        cast(transferred_at at time zone 'UTC' as date) as transferred_on
    from source
)

select * from renamed
