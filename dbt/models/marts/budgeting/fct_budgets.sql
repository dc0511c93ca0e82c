with budgets as (
    select * from {{ ref('stg_finance__budgets') }}
),

categories as (
    select * from {{ ref('stg_finance__categories') }}
),

joined as (
    select
        budgets.budget_id,
        budgets.user_id,
        budgets.category_id,
        categories.name as category_name,
        budgets.month,
        budgets.amount
    from budgets
    inner join categories on categories.category_id = budgets.category_id
)

select * from joined
order by user_id, month, budget_id
