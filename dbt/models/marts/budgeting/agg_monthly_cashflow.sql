with transactions as (
    select * from {{ ref('fct_transactions') }}
),

months as (
    select
        user_id,
        cast(date_trunc('month', posted_on) as date) as month,
        cast(coalesce(sum(amount) filter (where category_kind = 'income'), 0) as decimal(14, 2)) as income,
        cast(-coalesce(sum(amount) filter (where category_kind = 'expense'), 0) as decimal(14, 2)) as expense,
        cast(sum(amount) as decimal(14, 2)) as net,
        count(*) as transaction_count
    from transactions
    group by all
)

select
    user_id,
    month,
    income,
    expense,
    net,
    transaction_count,
    cast(case when income > 0 then net / income end as double) as savings_rate
from months
order by user_id, month
