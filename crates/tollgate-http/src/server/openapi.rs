//! The routes' promises as OpenAPI 3.1. A test compares every line with what the running server does.

use serde_json::{Map, Value, json};

use super::exchange::Exchange;
use crate::problem::ProblemKind;

/// The user's words in the description.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    pub(super) accepted: Option<Accepted>,
    /// The name of a security scheme, and the scheme.
    pub(super) security: Option<(String, Value)>,
    pub(super) title: Option<String>,
    pub(super) version: Option<String>,
}

/// Bodies that the user's functions make sense of.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) media_type: String,
    pub(super) schema: Value,
}

/// An entity tag as it is understood: without commas, which separate them.
const TAG: &str = r#"(W/)?"[!#-+\--~]*""#;

impl Exchange {
    /// The description of the routes, where the server is mounted.
    pub(super) fn described(&self, mount: &str) -> Value {
        let Description { security, title, version, .. } = &self.description;
        let mut description = self.paths();
        description["info"] = json!({
            "title": title.as_deref().unwrap_or("Requests that are executed exactly once"),
            "version": version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION")),
        });
        if !mount.is_empty() {
            description["servers"] = json!([{ "url": mount }]);
        }
        if let Some((name, scheme)) = security {
            description["components"]["securitySchemes"] = json!({ name: scheme });
            description["security"] = json!([{ name: [] }]);
        }
        description
    }

    fn paths(&self) -> Value {
        let (base, limits) = (&self.base, &self.limits);
        let stored = |what: &str| {
            json!({
                "description": what,
                "headers": {
                    "ETag": { "required": true, "schema": text() },
                    "Tollgate-Response": { "required": true, "schema": { "const": "stored" } },
                    "Idempotent-Replayed": {
                        "description": "It was executed before, and this is the response that it got then",
                        "schema": { "const": "true" },
                    },
                },
                "content": { "*/*": {} },
            })
        };
        let responses = json!({
            "200": stored("The stored response, if its status is 200; the same whenever it is asked for"),
            "default": stored("The stored response, whatever its status, media type and body are. \
                               It has the header Tollgate-Response; what has not is one of the others"),
        });
        let common = [
            ProblemKind::InvalidId,
            ProblemKind::Unauthenticated,
            ProblemKind::Broken,
            ProblemKind::Unavailable,
        ];
        let unchanged = json!({
            "name": "If-None-Match",
            "in": "header",
            "description": "ETags of responses that the caller has: answered with 304",
            "schema": { "type": "string", "pattern": format!(r"^(\*|({TAG}( ?, ?{TAG})*)?)$") },
        });
        let not_modified = json!({
            "description": "The caller has the response",
            "headers": { "ETag": { "required": true, "schema": text() } },
        });
        let precondition = json!({
            "name": "If-Match",
            "in": "header",
            "description": "The ETag of the incarnation that is meant, so that a late copy of it never touches another",
            "schema": { "type": "string", "pattern": format!(r"^(\*|({TAG}( ?, ?{TAG})*)?)$") },
        });
        let put = put_operation(self, &common);
        let gone = [
            ProblemKind::BadRequest,
            ProblemKind::UnknownId,
            ProblemKind::Deleted,
            ProblemKind::OtherIncarnation,
        ];
        let demanded: &[ProblemKind] =
            if limits.if_match_required { &[ProblemKind::PreconditionRequired] } else { &[] };
        let mut read = responses.clone();
        read["304"] = not_modified;
        let post = operation(
            "executeRequest",
            "Executes the request exactly once, however often it is repeated, and answers with its response",
            &json!({ "parameters": [precondition], "responses": responses }),
            &common,
            &[&gone[..], demanded].concat(),
        );
        let get = operation(
            "readResponse",
            "Answers with the response of the executed request",
            &json!({ "parameters": [precondition, unchanged], "responses": read }),
            &common,
            &[&gone[..], demanded, &[ProblemKind::NotExecuted]].concat(),
        );
        let delete = operation(
            "deleteRequest",
            "Removes all trace of the request",
            &json!({
                "parameters": [precondition],
                "responses": { "204": { "description": "All trace of it is gone" } },
            }),
            &common,
            &gone,
        );
        json!({
            "openapi": "3.1.0",
            "paths": {
                format!("{base}/{{id}}"): {
                    "parameters": [{
                        "name": "id",
                        "in": "path",
                        "required": true,
                        "description": "128 random bits, drawn by the client",
                        "schema": {
                            "type": "string",
                            "pattern": "^([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
                        },
                    }],
                    "put": put,
                    "post": post,
                    "get": get,
                    "delete": delete,
                },
                format!("{base}/openapi.json"): {
                    "get": {
                        "operationId": "readDescription",
                        "summary": "Answers with this description",
                        "responses": {
                            "200": { "description": "This description", "content": { "application/json": {} } },
                        },
                    },
                },
            },
            "components": { "schemas": { "Problem": problem_schema() } },
        })
    }
}

/// `PUT`, with links to what may follow it.
fn put_operation(exchange: &Exchange, common: &[ProblemKind]) -> Value {
    let body_bytes_max = exchange.body_bytes_max();
    let accepted = exchange.description.accepted.as_ref();
    let etag =
        json!({ "ETag": { "description": "Which incarnation of the request it is", "schema": text() } });
    let mut again = etag.clone();
    again["Idempotent-Replayed"] = json!({ "required": true, "schema": { "const": "true" } });
    let content = match accepted {
        None => json!({ "*/*": {} }),
        Some(Accepted { media_type, schema }) => json!({ media_type: { "schema": schema } }),
    };
    let quota: &[ProblemKind] =
        if exchange.limits.open_requests_max.is_some() { &[ProblemKind::TooManyRequests] } else { &[] };
    let same = json!({ "id": "$request.path.id" });
    let links = json!({
        "execute": { "operationId": "executeRequest", "parameters": same },
        "read": { "operationId": "readResponse", "parameters": same },
        "delete": { "operationId": "deleteRequest", "parameters": same },
    });
    operation(
        "storeRequest",
        "Stores a request, to be executed later; repeating it does nothing",
        &json!({
            "requestBody": {
                "description": format!("A body of at most {body_bytes_max} bytes; its media type is kept"),
                "required": accepted.is_some(),
                "content": content,
            },
            "responses": {
                "200": { "description": "It had been stored before", "headers": again, "links": links },
                "201": { "description": "It is stored", "headers": etag, "links": links },
            },
        }),
        common,
        &[
            &[
                ProblemKind::BadRequest,
                ProblemKind::IdInUse,
                ProblemKind::Deleted,
                ProblemKind::OtherIncarnation,
                ProblemKind::TooLarge,
                ProblemKind::TooSlow,
                ProblemKind::UnsupportedEncoding,
            ][..],
            quota,
        ]
        .concat(),
    )
}

fn text() -> Value {
    json!({ "type": "string" })
}

/// An operation with one response for each status of its problems.
fn operation(
    id: &str,
    summary: &str,
    what: &Value,
    common: &[ProblemKind],
    problems: &[ProblemKind],
) -> Value {
    let mut operation = what.clone();
    operation["operationId"] = id.into();
    operation["summary"] = summary.into();
    let mut by_status: Map<String, Value> = Map::new();
    for kind in common.iter().chain(problems) {
        let response = by_status.entry(kind.status().as_str()).or_insert_with(|| {
            let schema = json!({ "$ref": "#/components/schemas/Problem" });
            json!({
                "description": "",
                "content": { "application/problem+json": { "schema": schema } },
                "x-problems": [],
            })
        });
        if kind.retry_after().is_some() {
            response["headers"]["Retry-After"] = json!({ "required": true, "schema": { "type": "integer" } });
        }
        if *kind == ProblemKind::Unauthenticated {
            response["headers"]["WWW-Authenticate"] = json!({ "required": true, "schema": text() });
        }
        let description = response["description"].as_str().unwrap_or_default();
        let joint = if description.is_empty() { "" } else { "; " };
        response["description"] = format!("{description}{joint}{}", kind.title()).into();
        if let Some(kinds) = response["x-problems"].as_array_mut() {
            kinds.push(kind.uri().into());
        }
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.append(&mut by_status);
    }
    operation
}

fn problem_schema() -> Value {
    let kinds: Vec<&str> = ProblemKind::ALL.iter().map(|kind| kind.uri()).collect();
    json!({
        "description": "Problem details (RFC 9457)",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "enum": kinds },
            "title": text(),
            "status": { "type": "integer" },
            "detail": text(),
        },
    })
}
