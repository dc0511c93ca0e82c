with users as (
    select * from {{ ref('stg_finance__users') }}
)

select
    user_id,
    email,
    full_name,
    country,
    created_at,
    note
from users
order by user_id
