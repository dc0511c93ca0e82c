with transactions as (
    select * from {{ ref('stg_finance__transactions') }}
),

accounts as (
    select * from {{ ref('stg_finance__accounts') }}
),

merchants as (
    select * from {{ ref('stg_finance__merchants') }}
),

categories as (
    select * from {{ ref('stg_finance__categories') }}
),

joined as (
    select
        transactions.transaction_id,
        accounts.user_id,
        transactions.account_id,
        accounts.name as account_name,
        transactions.merchant_id,
        merchants.name as merchant_name,
        transactions.category_id,
        categories.name as category_name,
        categories.kind as category_kind,
        transactions.posted_on,
        transactions.posted_at,
        transactions.amount,
        transactions.currency,
        transactions.description
    from transactions
    inner join accounts on accounts.account_id = transactions.account_id
    inner join categories on categories.category_id = transactions.category_id
    left join merchants on merchants.merchant_id = transactions.merchant_id
)

select * from joined
order by user_id, posted_at, transaction_id
