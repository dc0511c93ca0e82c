def model(dbt, session):
    dbt.config(materialized="table")
    return dbt.ref("stock_turns").order("pieces desc").limit(2)
