//! Entry points for fuzz targets to private functions of the engines.

pub use crate::secrets::database::fuzzing::{
    Sql, check_statements, fill_statements, is_name_of_template, masked_connection_url, next_of_schedule, places,
    username,
};
