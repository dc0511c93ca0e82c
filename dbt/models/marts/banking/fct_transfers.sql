with transfers as (
    select * from {{ ref('stg_finance__transfers') }}
),

accounts as (
    select * from {{ ref('stg_finance__accounts') }}
),

sides as (
    select *, 'out' as direction, from_account_id as account_id, to_account_id as other_account_id, -amount as signed_amount
    from transfers

    union all

    select *, 'in' as direction, to_account_id as account_id, from_account_id as other_account_id, amount as signed_amount
    from transfers
),

joined as (
    select
        sides.transfer_id,
        sides.direction,
        accounts.user_id,
        sides.account_id,
        accounts.name as account_name,
        -- whose account the other side is, is nobody else's business
        case when other_accounts.user_id = accounts.user_id then sides.other_account_id end as counterparty_account_id,
        cast(sides.signed_amount as decimal(12, 2)) as amount,
        sides.description,
        sides.transferred_on,
        sides.transferred_at
    from sides
    inner join accounts on accounts.account_id = sides.account_id
    inner join accounts as other_accounts on other_accounts.account_id = sides.other_account_id
)

select * from joined
order by user_id, transferred_at, transfer_id, direction
