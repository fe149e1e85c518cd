//! Seals: kill -9 at every effect of every change of them ([`kills`]) and during migrations of a cluster ([`migrations`]),
//! seals that fail under load ([`chaos`]), and numbers ([`speed`]), which alone are measured with a count of 0.

mod chaos;
pub(crate) mod faults;
mod kills;
mod load;
mod migrations;
mod operations;
mod speed;
pub(crate) mod ways;

use anyhow::{Result, bail};

use super::{Findings, Options};
use crate::seals::SealServices;
use crate::servers::Make;

pub(super) fn run(options: &Options) -> Result<Findings> {
    if options.on != Make::Keepfast {
        bail!("only Keepfast has several seals");
    }
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let services = SealServices::start()?;
    if options.count == 0 {
        return Ok(Findings { passed: 1, numbers: speed::measure(&services)?, ..found });
    }
    kills::run(options, &services, &mut found)?;
    migrations::run(options, &services, &mut found)?;
    if !options.short {
        found.numbers += &format!("; {}", speed::measure(&services)?);
    }
    drop(services);
    chaos::run(options, &mut found)?;
    Ok(found)
}
