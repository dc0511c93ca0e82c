-- Assert that each user's months by category sum to the user's transactions in that category, to the cent.
with months as (
    select user_id, category_id, sum(total) as total, sum(transaction_count) as transactions
    from {{ ref('agg_monthly_category') }}
    group by user_id, category_id
),

detail as (
    select user_id, category_id, sum(amount) as total, count(*) as transactions
    from {{ ref('fct_transactions') }}
    group by user_id, category_id
)

select *
from detail
full join months using (user_id, category_id)
where months.total is distinct from detail.total
    or months.transactions is distinct from detail.transactions
