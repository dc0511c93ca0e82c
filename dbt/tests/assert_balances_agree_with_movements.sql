-- Assert that each account's balance is its opening balance and every movement on it, in marts that were all read from
-- the source at one moment. A user's account of kind external mirrors all of the user's transactions.
with accounts as (
    select * from {{ ref('dim_accounts') }}
),

movements as (
    select account_id, amount from {{ ref('fct_transactions') }}

    union all

    select external.account_id, -transactions.amount as amount
    from {{ ref('fct_transactions') }} as transactions
    inner join accounts as external on external.user_id = transactions.user_id and external.kind = 'external'

    union all

    select account_id, amount from {{ ref('fct_transfers') }}
),

moved as (
    select account_id, sum(amount) as amount
    from movements
    group by account_id
)

select
    accounts.account_id,
    accounts.balance,
    accounts.opening_balance + coalesce(moved.amount, 0) as expected_balance
from accounts
left join moved on moved.account_id = accounts.account_id
where accounts.balance != accounts.opening_balance + coalesce(moved.amount, 0)
