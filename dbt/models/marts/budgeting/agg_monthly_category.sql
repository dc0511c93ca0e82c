with transactions as (
    select * from {{ ref('fct_transactions') }}
),

months as (
    select
        user_id,
        cast(date_trunc('month', posted_on) as date) as month,
        category_id,
        category_name,
        category_kind,
        cast(sum(amount) as decimal(14, 2)) as total,
        count(*) as transaction_count,
        cast(avg(amount) as decimal(14, 2)) as average
    from transactions
    group by all
)

select * from months
order by user_id, month, category_id
