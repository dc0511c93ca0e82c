with accounts as (
    select * from {{ ref('stg_finance__accounts') }}
)

select
    account_id,
    user_id,
    kind,
    name,
    currency,
    opening_balance,
    balance,
    opened_on,
    closed_on,
    is_open
from accounts
order by user_id, account_id
