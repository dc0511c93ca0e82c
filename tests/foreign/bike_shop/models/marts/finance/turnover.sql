select
    groups.product_group,
    sum(sales.pieces) as pieces,
    sum(sales.pieces * sales."Unit Price") as turnover
from {{ ref('sales_log') }} as sales
left join {{ ref('product_groups') }} as groups using (product)
group by groups.product_group
order by turnover desc
