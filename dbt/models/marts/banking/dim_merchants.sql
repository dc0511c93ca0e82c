with merchants as (
    select * from {{ ref('stg_finance__merchants') }}
),

categories as (
    select * from {{ ref('stg_finance__categories') }}
),

joined as (
    select
        merchants.merchant_id,
        merchants.name,
        merchants.category_id,
        categories.name as category_name,
        merchants.city,
        merchants.website
    from merchants
    inner join categories on categories.category_id = merchants.category_id
)

select * from joined
order by merchant_id
