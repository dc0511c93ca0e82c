-- Assert that each user's monthly cash flow sums to the user's transactions, to the cent and to the transaction.
with cashflow as (
    select user_id, sum(income) - sum(expense) as total, sum(net) as net, sum(transaction_count) as transactions
    from {{ ref('agg_monthly_cashflow') }}
    group by user_id
),

detail as (
    select user_id, sum(amount) as total, count(*) as transactions
    from {{ ref('fct_transactions') }}
    group by user_id
)

select *
from detail
full join cashflow using (user_id)
where cashflow.total is distinct from detail.total
    or cashflow.net is distinct from detail.total
    or cashflow.transactions is distinct from detail.transactions
