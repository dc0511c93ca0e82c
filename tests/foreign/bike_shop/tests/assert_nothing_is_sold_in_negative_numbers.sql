select * from {{ ref('sales_log') }} where pieces < 0
