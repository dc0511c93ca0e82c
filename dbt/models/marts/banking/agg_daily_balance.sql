with accounts as (
    select * from {{ ref('dim_accounts') }}
),

transactions as (
    select * from {{ ref('fct_transactions') }}
),

transfers as (
    select * from {{ ref('fct_transfers') }}
),

movements as (
    select account_id, posted_on as day, amount from transactions

    union all

    select account_id, transferred_on as day, amount from transfers
),

days as (
    select account_id, day, sum(amount) as net_change
    from movements
    group by account_id, day
),

balances as (
    select
        accounts.user_id,
        days.account_id,
        days.day,
        cast(days.net_change as decimal(14, 2)) as net_change,
        cast(
            accounts.opening_balance
            + sum(days.net_change) over (partition by days.account_id order by days.day) as decimal(14, 2)
        ) as closing_balance
    from days
    inner join accounts on accounts.account_id = days.account_id
    where accounts.kind != 'external'
)

select * from balances
order by user_id, day, account_id
