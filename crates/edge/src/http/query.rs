//! The query: parameters in order, decoded once, and the three that select the operation.

use http::StatusCode;

use super::edge_response::EdgeResponse;
use super::path::decode;

/// The most parameters of a query: each uses far more memory than the two bytes of its shortest text.
const PARAMETERS: usize = 1_000;

/// A parsed query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// The parameters for the route.
    pub(crate) parameters: Vec<(String, String)>,
    /// `list=true`
    pub(crate) list: bool,
    /// `scan=true`
    pub(crate) scan: bool,
    /// `help` with any value.
    pub(crate) help: bool,
}

impl Query {
    /// Parses the text after `?`. With `choosing`, `list` and `scan` are removed and select the operation.
    pub(crate) fn parse(text: Option<&str>, choosing: bool) -> Result<Self, EdgeResponse> {
        let mut query = Query::default();
        let Some(text) = text else { return Ok(query) };
        if count(text) > PARAMETERS {
            return Err(EdgeResponse::error(StatusCode::BAD_REQUEST, "the query has too many parameters"));
        }
        let (mut list, mut scan) = (None, None);
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (component(name)?, component(value)?);
            match name.as_str() {
                // Of repeated ones the first counts, as in OpenBao.
                "list" if choosing => list = list.or(Some(truth(&value)?)),
                "scan" if choosing => scan = scan.or(Some(truth(&value)?)),
                "help" => query.help |= !value.is_empty(),
                _ => query.parameters.push((name, value)),
            }
        }
        (query.list, query.scan) = (list.unwrap_or(false), scan.unwrap_or(false));
        // A `list` or `scan` that is false stays a parameter, which no route has.
        for (name, value) in [("list", list), ("scan", scan)] {
            if value == Some(false) {
                query.parameters.push((name.to_owned(), "false".to_owned()));
            }
        }
        if query.list && query.scan {
            return Err(EdgeResponse::bare(StatusCode::BAD_REQUEST));
        }
        Ok(query)
    }
}

/// An upper bound of the number of parameters of a query.
pub(super) fn count(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'&').count() + 1
}

/// Decodes a name or value: `+` is a blank, then percent-encoding. Refuses a malformed one, which OpenBao drops.
fn component(raw: &str) -> Result<String, EdgeResponse> {
    let refused = || EdgeResponse::error(StatusCode::BAD_REQUEST, "malformed query");
    if raw.contains(';') {
        return Err(refused());
    }
    let blanks = if raw.contains('+') { decode(&raw.replace('+', " ")) } else { decode(raw) };
    blanks.map_err(|_| refused())
}

fn truth(text: &str) -> Result<bool, EdgeResponse> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EdgeResponse::bare(StatusCode::BAD_REQUEST)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn parsed(text: &str) -> Result<Query, u16> {
        Query::parse(Some(text), true).map_err(|a| a.status.as_u16())
    }

    #[test]
    fn every_parameter_counts_also_the_only_one() {
        for text in ["a", "a=b", "a=b&c", "&a&", "a=1&a=2&a=3"] {
            assert!(count(text) >= parsed(text).unwrap().parameters.len(), "{text}");
        }
        assert_eq!(["a", "a&b", "a&b&c"].map(count), [1, 2, 3]);
    }

    #[test]
    fn list_scan_and_help_select_the_operation() {
        let q = parsed("list=true&after=%61+b%2B&limit=5&after=c").unwrap();
        let owned =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            q,
            Query {
                parameters: owned(&[("after", "a b+"), ("limit", "5"), ("after", "c")]),
                list: true,
                ..Query::default()
            }
        );
        assert!(parsed("help=1").unwrap().help && !parsed("help").unwrap().help);
        assert!(parsed("list=true&list=false").unwrap().list && !parsed("list=").unwrap().list);
        assert!(parsed("scan=1").unwrap().scan);
        let not_choosing = Query::parse(Some("list=x"), false).unwrap();
        assert_eq!((not_choosing.list, not_choosing.parameters), (false, owned(&[("list", "x")])));
    }

    #[test]
    fn sec_ds02_a_query_has_at_most_1000_parameters() {
        let many = |n: usize| vec!["a"; n].join("&");
        assert_eq!(parsed(&many(1_000)).map(|q| q.parameters.len()), Ok(1_000));
        assert_eq!((parsed(&many(1_001)), parsed(&"&".repeat(1_001))), (Err(400), Err(400)));
    }

    #[test]
    fn ambiguous_queries_are_refused() {
        for text in ["list=x", "scan=2", "list=true&scan=true", "a=%zz", "a=1;b=2", "a=%ff"] {
            assert_eq!(parsed(text), Err(400), "{text}");
        }
    }
}
