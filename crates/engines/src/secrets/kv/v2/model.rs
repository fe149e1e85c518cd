//! Random sequences of operations on one secret, compared with a model that keeps every version in a list.

use keepfast_framework::testing::Bench;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::V2;

/// One operation; version numbers may exceed those of existing versions.
#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    WriteIf(u64),
    Patch(u8),
    DeleteCurrent,
    Delete(u64),
    Undelete(u64),
    Destroy(u64),
    MaxVersions(u64),
    DeleteMetadata,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelVersion {
    number: u64,
    data: Option<Value>,
    deleted: bool,
}

#[derive(Default)]
struct Model {
    exists: bool,
    current: u64,
    max_versions: u64,
    versions: Vec<ModelVersion>,
}

impl Model {
    fn push(&mut self, data: Value) {
        self.exists = true;
        self.current += 1;
        self.versions.push(ModelVersion { number: self.current, data: Some(data), deleted: false });
        let keep = if self.max_versions == 0 { 10 } else { self.max_versions as usize };
        let excess = self.versions.len().saturating_sub(keep);
        self.versions.drain(..excess);
    }

    fn version(&mut self, number: u64) -> Option<&mut ModelVersion> {
        self.versions.iter_mut().find(|kept| kept.number == number)
    }

    /// Applies the operation; returns whether it succeeds.
    fn apply(&mut self, step: &Step) -> bool {
        let current = self.current;
        match step {
            Step::Write(n) => self.push(json!({"n": n})),
            Step::WriteIf(cas) if *cas == current => self.push(json!({"cas": cas})),
            Step::WriteIf(_) => return false,
            Step::Patch(n) => {
                let Some(ModelVersion { data: Some(data), deleted: false, .. }) = self.version(current).cloned() else {
                    return false;
                };
                let mut data = data;
                data["p"] = json!(n);
                self.push(data);
            }
            Step::DeleteCurrent => self.apply_to(current, |kept| kept.deleted = true),
            Step::Delete(number) => self.apply_to(*number, |kept| kept.deleted = true),
            Step::Undelete(number) => self.apply_to(*number, |kept| kept.deleted = false),
            Step::Destroy(number) => self.apply_to(*number, |kept| kept.data = None),
            Step::MaxVersions(number) => {
                self.exists = true;
                self.max_versions = *number;
            }
            Step::DeleteMetadata => *self = Model::default(),
        }
        true
    }

    /// Changes a version unless it is destroyed.
    fn apply_to(&mut self, number: u64, change: impl FnOnce(&mut ModelVersion)) {
        if let Some(kept) = self.version(number).filter(|kept| kept.data.is_some()) {
            change(kept);
        }
    }
}

async fn ask(bench: &Bench, step: &Step) -> bool {
    let one = |number: &u64| json!({"versions": [number]});
    let answer = match step {
        Step::Write(n) => bench.write("data/a", json!({"data": {"n": n}})).await,
        Step::WriteIf(cas) => bench.write("data/a", json!({"data": {"cas": cas}, "options": {"cas": cas}})).await,
        Step::Patch(n) => bench.patch("data/a", json!({"data": {"p": n}})).await,
        Step::DeleteCurrent => bench.delete("data/a").await,
        Step::Delete(number) => bench.write("delete/a", one(number)).await,
        Step::Undelete(number) => bench.write("undelete/a", one(number)).await,
        Step::Destroy(number) => bench.write("destroy/a", one(number)).await,
        Step::MaxVersions(number) => bench.write("metadata/a", json!({"max_versions": number})).await,
        Step::DeleteMetadata => bench.delete("metadata/a").await,
    };
    answer.is_ok_and(|answer| answer.status().is_none())
}

/// Compares the metadata, the data of every version and the list with the model.
async fn compare(bench: &Bench, model: &Model) {
    let metadata = bench.read("metadata/a").await.ok().map(|answer| answer.data());
    assert_eq!(metadata.is_some(), model.exists);
    assert_eq!(bench.list("metadata/").await.is_ok(), model.exists);
    if let Some(metadata) = metadata {
        assert_eq!(metadata["current_version"], model.current);
        let numbers: Vec<String> = model.versions.iter().map(|kept| kept.number.to_string()).collect();
        assert_eq!(metadata["versions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), numbers);
    }
    for number in 0..=model.current + 1 {
        let wanted = if number == 0 { model.current } else { number };
        let kept = model.versions.iter().find(|kept| kept.number == wanted);
        let read = bench.read(&format!("data/a?version={number}")).await.ok();
        assert_eq!(read.is_some(), kept.is_some(), "version {number}");
        if let (Some(read), Some(kept)) = (read, kept) {
            let shown = kept.data.clone().filter(|_| !kept.deleted);
            assert_eq!(read.status().is_none(), shown.is_some(), "version {number}");
            assert_eq!(read.data()["data"], shown.unwrap_or(Value::Null), "version {number}");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<u8>().prop_map(Step::Write),
        2 => (0..8_u64).prop_map(Step::WriteIf),
        2 => any::<u8>().prop_map(Step::Patch),
        2 => Just(Step::DeleteCurrent),
        2 => (0..14_u64).prop_map(Step::Delete),
        2 => (0..14_u64).prop_map(Step::Undelete),
        2 => (0..14_u64).prop_map(Step::Destroy),
        1 => (0..5_u64).prop_map(Step::MaxVersions),
        1 => Just(Step::DeleteMetadata),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn sec_se12_any_sequence_of_operations_matches_a_list_of_versions(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new::<V2>().await.unwrap();
            let mut model = Model::default();
            for step in &steps {
                bench.clock.advance(std::time::Duration::from_secs(1));
                assert_eq!(ask(&bench, step).await, model.apply(step), "{step:?}");
                compare(&bench, &model).await;
            }
        });
    }
}
