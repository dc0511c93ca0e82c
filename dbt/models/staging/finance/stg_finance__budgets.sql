with source as (
    select * from {{ source('finance', 'budgets') }}
),

renamed as (
    select
        budget_id,
        user_id,
        category_id,
        month,
        amount
    from source
)

select * from renamed
