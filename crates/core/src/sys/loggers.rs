//! `sys/loggers`: the log levels of the server, which may change at run time.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::fields::{Quoted, Text};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{System, unsealed};
use crate::settings::{LogLevel, LogLevels};

const HELP: Help = Help {
    synopsis: "Returns or sets the log levels of loggers.",
    description: "A level that is set here applies until the server restarts.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("loggers", HELP).found_by_lists().read(list).update(set_all).delete(reset_all).of_own_node().root_only();
    r.path("loggers/{name}", HELP).final_slash().read(read).update(set).delete(reset).of_own_node().root_only();
}

#[derive(Deserialize, JsonSchema)]
struct LoggerPath {
    /// Name of the logger.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Level {
    /// Log level: `trace`, `debug`, `info`, `warn` or `error`.
    level: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct LoggerLevel {
    /// Name of the logger.
    name: Text,
    /// Log level: `trace`, `debug`, `info`, `warn` or `error`.
    level: Option<Text>,
}

type Levels = Data<BTreeMap<&'static str, &'static str>>;

fn log(cx: &Cx) -> Result<Arc<dyn LogLevels>> {
    unsealed(cx)?.settings.log.clone().ok_or_else(|| Error::invalid("this server's log has fixed levels"))
}

fn level(given: Option<Text>) -> Result<LogLevel> {
    let given = given.ok_or_else(|| Error::invalid("level is required"))?;
    if given.is_empty() {
        return Err(Error::invalid("level is empty"));
    }
    let unknown = || Error::invalid(format!("invalid level provided: unknown log level: {}", given.to_lowercase()));
    LogLevel::parse(&given).ok_or_else(unknown)
}

fn found(there_is: bool, name: &str) -> Result<()> {
    if there_is { Ok(()) } else { Err(Error::invalid(format!("logger {} not found", Quoted(name)))) }
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Levels> {
    Ok(Data(log(cx)?.levels()))
}

async fn read(_: &System, cx: &mut Cx, req: LoggerPath) -> Result<Levels> {
    let mut levels = log(cx)?.levels();
    levels.retain(|name, _| *name == &*req.name);
    Ok(Data(levels))
}

async fn set_all(_: &System, cx: &mut Cx, req: Level) -> Result<()> {
    let level = level(req.level)?;
    log(cx)?.set(None, Some(level));
    Ok(())
}

async fn set(_: &System, cx: &mut Cx, req: LoggerLevel) -> Result<()> {
    let level = level(req.level)?;
    found(log(cx)?.set(Some(&req.name), Some(level)), &req.name)
}

async fn reset_all(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    log(cx)?.set(None, None);
    Ok(())
}

async fn reset(_: &System, cx: &mut Cx, req: LoggerPath) -> Result<()> {
    found(log(cx)?.set(Some(&req.name), None), &req.name)
}
