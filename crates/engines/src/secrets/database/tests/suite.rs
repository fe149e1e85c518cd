//! The requirements for every kind of database, on a real server: `database_suite!(name, kit)` creates a test of all
//! cases on the server that the kit starts.

use std::io::Read;
use std::net::TcpStream;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::testing::{Bench, held};
use serde_json::{Value, json};

use super::servers::wait_until;
use crate::secrets::database::DatabaseEngine;
use crate::secrets::database::connection::{CreateUserError, Database, NewUser};
use crate::secrets::database::credential::Login;
use crate::secrets::database::details::of_json;
use crate::secrets::database::files::FileDirectories;
use crate::secrets::database::kinds::Kind;

/// A real server, with the operations that the suite needs besides those of the engine.
pub(super) trait Kit: Send + Sync + 'static {
    /// The plugin name of the kind.
    fn plugin(&self) -> &'static str;
    /// The settings of a connection to it, or to a port without a server, without the password.
    fn settings(&self, is_there: bool) -> Value;
    /// The settings of a connection through another port, without name and password.
    fn settings_at(&self, port: u16) -> Value;
    /// Logs in without further commands.
    fn read_nothing(&self, user: &str, password: &str) -> Result<(), String>;
    /// The administrator's password.
    fn password(&self) -> &'static str;
    /// Statements that create a user with read access to the data.
    fn creation(&self) -> Vec<String>;
    /// Statements that create a user and then fail.
    fn failing_creation(&self) -> Vec<String>;
    /// Reads the data as a user.
    fn read(&self, user: &str, password: &str) -> Result<(), String>;
    /// Changes the data as a user.
    fn change(&self, user: &str, password: &str) -> Result<(), String>;
    /// Creates a user that may log in, or an administrator.
    fn make_user(&self, name: &str, password: &str, is_administrator: bool);
    /// The names of all users.
    fn users(&self) -> Vec<String>;
    /// A session that lasts until it is terminated.
    fn open_session(&self, user: &str, password: &str) -> Session;
    /// How many sessions a user has.
    fn sessions(&self, user: &str) -> usize;
    /// Terminates a user's sessions.
    fn cut(&self, user: &str);
    /// Whether the data is unchanged.
    fn is_intact(&self) -> bool;
    /// Whether the server accepts a name.
    fn accepts_name(&self, _name: &str) -> bool {
        true
    }
}

/// A session of a client.
pub(super) enum Session {
    Program(Child),
    Stream(TcpStream),
}

impl Session {
    /// Waits until the server terminates it.
    fn ends(self) {
        match self {
            Session::Program(mut child) => assert!(!child.wait().unwrap().success(), "the session was not ended"),
            Session::Stream(mut stream) => while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {},
        }
    }
}

/// Runs every case on one server and reports all failures.
macro_rules! database_suite {
    ($name:ident, $kit:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(kit) = $kit {
                crate::secrets::database::tests::suite::run(std::sync::Arc::new(kit)).await;
            }
        }
    };
}
pub(super) use database_suite;

/// All cases.
pub(super) async fn run(kit: Arc<dyn Kit>) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {{
            let mut failed = Vec::new();
            $(if tokio::spawn($case(kit.clone())).await.is_err() { failed.push(stringify!($case)); })*
            failed
        }};
    }
    let failed = cases!(
        credentials_are_verified,
        a_user_has_the_granted_rights_until_revocation,
        users_are_listed_by_their_prefix,
        revocation_ends_sessions,
        a_failed_creation_leaves_no_user,
        a_password_is_changed_and_proved,
        sec_se03_hostile_names_and_passwords_are_quoted,
        sec_se06_revoking_one_user_does_not_affect_another,
        the_error_of_an_unreachable_server_contains_no_secret,
        terminated_connections_are_replaced,
        the_pool_keeps_its_limits,
        the_engine_creates_and_revokes_users_and_returns_errors,
        a_user_that_exists_is_never_dropped_by_a_failed_request,
        of_two_requests_for_one_name_one_is_refused,
    );
    assert!(failed.is_empty(), "{}: failed: {}", kit.plugin(), failed.join(", "));
}

fn secret(text: &str) -> SecretString {
    SecretString::new(text.to_owned())
}

fn open_as(kit: &dyn Kit, settings: &Value, password: &str) -> Arc<dyn Database> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened = Kind::by_name(kit.plugin()).unwrap().open(
        &of_json(settings),
        &secret(password),
        &FileDirectories::default(),
        &clock,
    );
    opened.unwrap_or_else(|why| panic!("{}", why.text()))
}

fn open(kit: &dyn Kit) -> Arc<dyn Database> {
    open_as(kit, &kit.settings(true), kit.password())
}

/// A name that no user has.
fn unused_name() -> String {
    format!("v_{}", random::base62(10))
}

fn later() -> Timestamp {
    SystemClock.now().after(Duration::from_secs(3600))
}

/// Creates a user as a role does; returns its password.
async fn create(kit: &dyn Kit, database: &dyn Database, name: &str) -> String {
    let password = random::base62(16);
    let user = NewUser { name, login: Login::Password(&secret(&password)), expires: later() };
    database.create_user(&user, &kit.creation()).await.unwrap();
    password
}

fn failure(outcome: Result<(), CreateUserError>) -> String {
    let failed = outcome.unwrap_err();
    assert!(!matches!(failed, CreateUserError::NameExists(_)), "{failed:?}");
    failed.into_error().text().to_owned()
}

fn has(kit: &dyn Kit, name: &str) -> bool {
    kit.users().iter().any(|user| user == name)
}

async fn credentials_are_verified(kit: Arc<dyn Kit>) {
    open(&*kit).verify().await.unwrap();
    let wrong = open_as(&*kit, &kit.settings(true), "not-the-password").verify().await.unwrap_err().text().to_owned();
    assert!(wrong.starts_with("error verifying") && !wrong.contains("not-the-password"), "{wrong}");
}

async fn a_user_has_the_granted_rights_until_revocation(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    let password = create(&*kit, &*database, &name).await;
    kit.read(&name, &password).unwrap();
    kit.change(&name, &password).unwrap_err();
    assert!(kit.is_intact());
    database.renew_user(&name, later(), &[]).await.unwrap();
    kit.read(&name, &password).unwrap();
    for _ in 0..2 {
        database.drop_user(&name, &[]).await.unwrap();
        assert!(!has(&*kit, &name));
        kit.read(&name, &password).unwrap_err();
    }
    database.drop_user("nobody-has-this-name", &[]).await.unwrap();
}

async fn users_are_listed_by_their_prefix(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    create(&*kit, &*database, &name).await;
    assert_eq!(database.list_users(&name).await.unwrap(), std::slice::from_ref(&name));
    let listed = database.list_users("").await.unwrap();
    assert!(listed.contains(&"vault_admin".to_owned()) && listed.contains(&name), "{listed:?}");
    database.drop_user(&name, &[]).await.unwrap();
    assert!(database.list_users(&name).await.unwrap().is_empty());
}

async fn revocation_ends_sessions(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    let password = create(&*kit, &*database, &name).await;
    let session = kit.open_session(&name, &password);
    wait_until("the session is there", || kit.sessions(&name) > 0);
    database.drop_user(&name, &[]).await.unwrap();
    session.ends();
    assert_eq!(kit.sessions(&name), 0);
}

async fn a_failed_creation_leaves_no_user(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    let user = NewUser { name: &name, login: Login::Password(&secret("the-password")), expires: later() };
    let failed = failure(database.create_user(&user, &kit.failing_creation()).await);
    assert!(!failed.contains("the-password"), "{failed}");
    assert!(!has(&*kit, &name), "{failed}");
    // The connection that failed is still usable.
    create(&*kit, &*database, &name).await;
    database.drop_user(&name, &[]).await.unwrap();
}

async fn a_password_is_changed_and_proved(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    kit.make_user(&name, "first", false);
    database.set_password(&name, &secret("second"), &[]).await.unwrap();
    assert!(database.accepts(&name, &secret("second")).await.unwrap());
    assert!(!database.accepts(&name, &secret("first")).await.unwrap());
    database.drop_user(&name, &[]).await.unwrap();
    let nobody = unused_name();
    let unknown =
        database.set_password(&nobody, &secret("the-password"), &[]).await.unwrap_err().into_error().text().to_owned();
    assert!(!unknown.contains("the-password") && !has(&*kit, &nobody), "{unknown}");
}

/// Names and passwords that would have a meaning for a database if they were not quoted.
const HOSTILE: &[&str] = &[
    "o'brien",
    "x\"; DROP TABLE orders; --",
    "x'; DROP TABLE orders; --",
    "back\\slash\\",
    "tick`; DROP TABLE orders",
    "$$;$$ DELETE FROM orders; $a$",
    "ünï-ço∂é-%s-{{name}}",
    "'\"`\\;#/*--",
];

async fn sec_se03_hostile_names_and_passwords_are_quoted(kit: Arc<dyn Kit>) {
    let database = open(&*kit);
    let before = kit.users().len();
    for hostile in HOSTILE.iter().copied().filter(|name| kit.accepts_name(name)) {
        kit.make_user(hostile, "first", false);
        assert!(has(&*kit, hostile), "{hostile}");
        database.set_password(hostile, &secret(hostile), &[]).await.unwrap();
        assert!(database.accepts(hostile, &secret(hostile)).await.unwrap(), "{hostile}");
        database.renew_user(hostile, later(), &[]).await.unwrap();
        database.drop_user(hostile, &[]).await.unwrap();
        assert_eq!((kit.users().len(), kit.is_intact()), (before, true), "{hostile}");
        // Statements of a role contain the values unchanged, or refuse them.
        let user = NewUser { name: hostile, login: Login::Password(&secret(hostile)), expires: later() };
        match database.create_user(&user, &kit.creation()).await {
            Ok(()) => kit.read(hostile, hostile).unwrap_or_else(|text| panic!("{hostile}: {text}")),
            refused => {
                let error_text = failure(refused);
                assert!(error_text.starts_with("the value of {{"), "{hostile}: {error_text}");
            }
        }
        database.drop_user(hostile, &[]).await.unwrap();
        assert_eq!((kit.users().len(), kit.is_intact()), (before, true), "{hostile}");
    }
}

async fn sec_se06_revoking_one_user_does_not_affect_another(kit: Arc<dyn Kit>) {
    let database = open(&*kit);
    let (one, other) = (unused_name(), unused_name());
    create(&*kit, &*database, &one).await;
    let password = create(&*kit, &*database, &other).await;
    database.drop_user(&one, &[]).await.unwrap();
    kit.read(&other, &password).unwrap();
    database.drop_user(&other, &[]).await.unwrap();
}

async fn the_error_of_an_unreachable_server_contains_no_secret(kit: Arc<dyn Kit>) {
    let database = open_as(&*kit, &kit.settings(false), kit.password());
    let new = secret("the-new-password");
    let user = NewUser { name: "v_somebody", login: Login::Password(&new), expires: later() };
    for error_text in [
        database.verify().await.unwrap_err().text().to_owned(),
        failure(database.create_user(&user, &kit.creation()).await),
        database.set_password("v_somebody", &new, &[]).await.unwrap_err().into_error().text().to_owned(),
        database.drop_user("v_somebody", &[]).await.unwrap_err().text().to_owned(),
        database.accepts("v_somebody", &new).await.unwrap_err().text().to_owned(),
    ] {
        assert!(error_text.contains("connect: connection refused"), "{error_text}");
        assert!(!error_text.contains(kit.password()) && !error_text.contains("the-new-password"), "{error_text}");
    }
}

async fn terminated_connections_are_replaced(kit: Arc<dyn Kit>) {
    let administrator = unused_name();
    kit.make_user(&administrator, "boss", true);
    let mut settings = kit.settings(true);
    settings["username"] = administrator.clone().into();
    let database = open_as(&*kit, &settings, "boss");
    for _ in 0..3 {
        let name = unused_name();
        create(&*kit, &*database, &name).await;
        kit.cut(&administrator);
        database.drop_user(&name, &[]).await.unwrap();
        assert!(!has(&*kit, &name));
    }
    assert_eq!(database.pool_stats().opened, 4);
    open(&*kit).drop_user(&administrator, &[]).await.unwrap();
}

async fn the_pool_keeps_its_limits(kit: Arc<dyn Kit>) {
    let mut settings = kit.settings(true);
    settings["max_open_connections"] = 2.into();
    let database = open_as(&*kit, &settings, kit.password());
    assert_eq!(database.pool_stats().open, 0, "nothing is opened before it is needed");
    let names: Vec<String> = (0..8).map(|_| unused_name()).collect();
    futures_util::future::join_all(names.iter().map(|name| create(&*kit, &*database, name))).await;
    let numbers = database.pool_stats();
    assert!(numbers.open <= 2 && numbers.opened <= 2 && numbers.in_use == 0 && numbers.waits > 0, "{numbers:?}");
    for name in &names {
        database.drop_user(name, &[]).await.unwrap();
    }
}

/// An engine with a connection `db`, whose users all have the name `name`, and a role `app`.
async fn engine_with_one_name(kit: &dyn Kit, name: &str) -> Bench {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let mut config = kit.settings(true);
    let more = json!({"plugin_name": kit.plugin(), "allowed_roles": "*", "password": kit.password(), "username_template": name});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bench.write("config/db", config).await.unwrap();
    let role = json!({"db_name": "db", "creation_statements": kit.creation(), "default_ttl": "1h"});
    bench.write("roles/app", role).await.unwrap();
    bench
}

/// Revokes unconfirmed intents, as core does.
async fn revoke_abandoned(bench: &Bench) -> Vec<Result<(), String>> {
    let mut outcomes = Vec::new();
    for lease in bench.abandoned() {
        let (engine, mut cx) = bench.engine_and_cx();
        outcomes.push(engine.revoke_lease(&mut cx, &lease).await.map_err(|error| error.public().to_owned()));
    }
    outcomes
}

async fn a_user_that_exists_is_never_dropped_by_a_failed_request(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    let bench = engine_with_one_name(&*kit, &name).await;
    kit.make_user(&name, "somebodys", false);
    let refused = bench.read("creds/app").await.err().unwrap();
    assert_eq!(refused.status().0, 400, "{}", refused.public());
    assert_eq!((revoke_abandoned(&bench).await, has(&*kit, &name)), (vec![], true), "there is nothing to undo");
    // The server returns the same error if the check was too early.
    let user = NewUser { name: &name, login: Login::Password(&secret("another")), expires: later() };
    let CreateUserError::NameExists(error_text) = database.create_user(&user, &kit.creation()).await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(refused.public(), format!("1 error occurred:\n\t* {}\n\n", error_text.text()));
    assert!(database.accepts(&name, &secret("somebodys")).await.unwrap());
    database.drop_user(&name, &[]).await.unwrap();
    // Another owner creates the name after the check and before a crash.
    let failing = json!({"creation_statements": kit.failing_creation()});
    bench.write("roles/app", failing).await.unwrap();
    assert_eq!(bench.read("creds/app").await.err().unwrap().status().0, 500);
    assert_eq!(revoke_abandoned(&bench).await, [Ok(())], "there is no user to drop");
    kit.make_user(&name, "somebodys", false);
    let [Err(left)] = &revoke_abandoned(&bench).await[..] else { panic!("it may be somebody's") };
    assert!(left.contains("was not dropped") && has(&*kit, &name), "{left}");
    database.drop_user(&name, &[]).await.unwrap();
    // A user that was created for the intent is dropped.
    let password = bench.abandoned()[0].until_confirmed["password"].as_str().unwrap().to_owned();
    kit.make_user(&name, &password, false);
    assert_eq!((revoke_abandoned(&bench).await, has(&*kit, &name)), (vec![Ok(())], false));
}

async fn of_two_requests_for_one_name_one_is_refused(kit: Arc<dyn Kit>) {
    let (database, name) = (open(&*kit), unused_name());
    let bench = engine_with_one_name(&*kit, &name).await;
    let both = futures_util::future::join_all([bench.read("creds/app"), bench.read("creds/app")]).await;
    let (made, refused): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
    let (made, refused) = (made[0].as_ref().unwrap().data(), refused[0].as_ref().err().unwrap());
    assert_eq!(refused.status().0, 400, "{}", refused.public());
    assert_eq!(revoke_abandoned(&bench).await, []);
    kit.read(&name, made["password"].as_str().unwrap()).unwrap();
    database.drop_user(&name, &[]).await.unwrap();
    // Another mount, whose leases are unknown here, creates it between check and creation.
    let others = (engine_with_one_name(&*kit, &name).await, engine_with_one_name(&*kit, &name).await);
    let both = futures_util::future::join_all([others.0.read("creds/app"), others.1.read("creds/app")]).await;
    let made = both.into_iter().find_map(Result::ok).unwrap().data();
    assert_eq!((revoke_abandoned(&others.0).await, revoke_abandoned(&others.1).await), (vec![], vec![]));
    assert!(has(&*kit, &name) && made["username"] == *name);
    database.drop_user(&name, &[]).await.unwrap();
}

async fn the_engine_creates_and_revokes_users_and_returns_errors(kit: Arc<dyn Kit>) {
    let bench = Bench::new::<DatabaseEngine>().await.unwrap();
    bench.clock.advance(SystemClock.now().since(bench.clock.now()));
    let config = |is_there: bool, password: &str| {
        let mut config = kit.settings(is_there);
        let more = json!({"plugin_name": kit.plugin(), "allowed_roles": "*", "password": password});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let refused = bench.write("config/db", config(true, "wrong-one")).await.err().unwrap();
    assert_eq!(refused.status().0, 400);
    assert!(refused.public().starts_with("error creating database object: error verifying"), "{}", refused.public());
    bench.write("config/db", config(true, kit.password())).await.unwrap();
    bench
        .write("roles/app", json!({"db_name": "db", "creation_statements": kit.creation(), "default_ttl": "1h"}))
        .await
        .unwrap();
    let data = bench.read("creds/app").await.unwrap().data();
    let (user, password) = (data["username"].as_str().unwrap(), data["password"].as_str().unwrap());
    kit.read(user, password).unwrap();
    let gauges: Vec<_> =
        bench.engine_and_cx().0.gauges().into_iter().filter(|g| g.name == "database.pool.open").collect();
    assert_eq!((gauges.len(), gauges[0].value, &*gauges[0].labels[0].1), (1, 1.0, "db"));
    let internal = json!({"username": user, "role": "app", "db_name": "db", "revocation_statements": []});
    let (engine, mut cx) = bench.engine_and_cx();
    let lease = held("creds/app", internal, Duration::ZERO, &bench.clock);
    engine.renew_lease(&mut cx, &lease).await.unwrap();
    engine.revoke_lease(&mut cx, &lease).await.unwrap();
    kit.read(user, password).unwrap_err();
    let mut elsewhere = config(false, kit.password());
    let refused = bench.write("config/db", elsewhere.clone()).await.err().unwrap();
    assert_eq!((refused.status().0, refused.public().contains("connection refused")), (400, true));
    elsewhere["verify_connection"] = false.into();
    bench.write("config/db", elsewhere).await.unwrap();
    let failed = bench.read("creds/app").await.err().unwrap();
    assert_eq!((failed.status().0, failed.public().contains("connection refused")), (500, true));
}
