with recursive categories as (
    select * from {{ ref('stg_finance__categories') }}
),

paths as (
    select category_id, name, kind, parent_id, [name] as path
    from categories
    where parent_id is null

    union all

    select
        categories.category_id,
        categories.name,
        categories.kind,
        categories.parent_id,
        list_append(paths.path, categories.name) as path
    from categories
    inner join paths on paths.category_id = categories.parent_id
)

select category_id, name, kind, parent_id, path
from paths
order by category_id
