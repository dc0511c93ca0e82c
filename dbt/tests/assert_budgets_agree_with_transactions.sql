-- Assert that every budget has its row, and that what is left of it and what was spent, counted transaction by
-- transaction, make the budget.
with spending as (
    select budgets.budget_id, coalesce(-sum(transactions.amount), 0) as spent
    from {{ ref('fct_budgets') }} as budgets
    left join {{ ref('fct_transactions') }} as transactions
        on transactions.user_id = budgets.user_id
        and transactions.category_id = budgets.category_id
        and transactions.posted_on >= budgets.month
        and transactions.posted_on < budgets.month + interval 1 month
    group by budgets.budget_id
)

select budgets.budget_id, budgets.amount, monthly.spent, monthly.remaining, spending.spent as expected_spent
from {{ ref('fct_budgets') }} as budgets
inner join spending on spending.budget_id = budgets.budget_id
left join {{ ref('agg_budget_monthly') }} as monthly
    on monthly.user_id = budgets.user_id
    and monthly.category_id = budgets.category_id
    and monthly.month = budgets.month
where monthly.spent is distinct from spending.spent
    or monthly.remaining is distinct from budgets.amount - spending.spent
