with budgets as (
    select * from {{ ref('fct_budgets') }}
),

transactions as (
    select * from {{ ref('fct_transactions') }}
),

spending as (
    select
        user_id,
        cast(date_trunc('month', posted_on) as date) as month,
        category_id,
        -sum(amount) as spent
    from transactions
    group by all
),

joined as (
    select
        budgets.user_id,
        budgets.month,
        budgets.category_id,
        budgets.category_name,
        cast(budgets.amount as decimal(14, 2)) as budget,
        cast(coalesce(spending.spent, 0) as decimal(14, 2)) as spent,
        cast(budgets.amount - coalesce(spending.spent, 0) as decimal(14, 2)) as remaining
    from budgets
    left join spending using (user_id, month, category_id)
)

select * from joined
order by user_id, month, category_id
