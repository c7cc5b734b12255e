//! The emulator over HTTP: every request is handed to it as it came, and its answer goes back as it is. No authentication,
//! no TLS, no persistence: for tests on one machine. The SDK accepts `http://` for `localhost` and `127.0.0.1`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use azure_core::http::{Method, Url};
use azure_data_cosmos::options::Region;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosClientBuilder, RoutingStrategy,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::emulator::{CosmosEmulator, KEY, PHYSICAL_PARTITIONS};
use crate::error::EmulatorError;

/// How the program is called.
pub const USAGE: &str = "\
usage: cosmos-emulator [--listen 127.0.0.1:8081] [--container DATABASE/CONTAINER/KEY-FIELD]... [--partitions 200]
  serves an emulated Cosmos DB account, without TLS, with any key; prints one line once it listens";

/// Where it listens unless told otherwise: the port of Microsoft's emulators.
const LISTEN: &str = "127.0.0.1:8081";

/// Largest request: a batch has 2 MB, and its encoding as a request adds little.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often what has expired is deleted: a query over all physical partitions.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The only region of a hosted account.
const REGION: &str = "East US";

/// What the program was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Databases, containers and fields of partition keys.
    pub containers: Vec<(String, String, String)>,
    /// Physical partitions of each container.
    pub physical_partitions: u32,
}

impl Arguments {
    /// Reads the arguments of a command line.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self {
            listen: LISTEN.parse().map_err(|error| format!("{LISTEN}: {error}"))?,
            containers: Vec::new(),
            physical_partitions: PHYSICAL_PARTITIONS,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--listen" => asked.listen = value.parse().map_err(|error| format!("{value}: {error}"))?,
                "--partitions" => {
                    asked.physical_partitions = value.parse().map_err(|error| format!("{value}: {error}"))?;
                }
                "--container" => match value.split('/').collect::<Vec<_>>()[..] {
                    [database, container, field] => {
                        asked.containers.push((database.into(), container.into(), field.into()));
                    }
                    _ => return Err(format!("{value} is not DATABASE/CONTAINER/KEY-FIELD")),
                },
                _ => return Err(format!("{name} is not known")),
            }
        }
        if asked.containers.is_empty() {
            asked.containers.push(("tollgate".into(), "tollgate".into(), "pk".into()));
        }
        Ok(asked)
    }
}

/// An emulated account that is being served.
pub struct HostedEmulator {
    address: SocketAddr,
    emulator: Arc<CosmosEmulator>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    expiry: JoinHandle<()>,
}

impl HostedEmulator {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`EmulatorError`] if the account can't be configured or the address can't be listened at.
    pub async fn start(asked: &Arguments) -> Result<Self, EmulatorError> {
        let cannot = |error: std::io::Error| EmulatorError::Serve {
            address: asked.listen.to_string(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(asked.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let mut builder = CosmosEmulator::builder()
            .region_at(REGION, endpoint(address)?)
            .physical_partitions(asked.physical_partitions);
        for (database, container, field) in &asked.containers {
            builder = builder.container(database, container, &[&format!("/{field}")]);
        }
        let emulator = Arc::new(builder.start()?);
        let state = Hosted { emulator: Arc::clone(&emulator), endpoint: endpoint(address)? };
        let router = Router::new().fallback(answer).with_state(Arc::new(state));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            // The sender's end is dropped with the value that holds it: that is a stop as well.
            stopped.await.ok();
        });
        let server = tokio::spawn(async move { server.await });
        let expiry = tokio::spawn(expire(Arc::clone(&emulator), emulator.client().await?));
        Ok(Self { address, emulator, stop, server, expiry })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account.
    pub fn emulator(&self) -> &CosmosEmulator {
        &self.emulator
    }

    /// Stops listening and waits until requests under way are answered.
    pub async fn stop(self) {
        // If the server has ended by itself nobody listens any more.
        self.stop.send(()).ok();
        self.server.await.ok();
        self.expiry.abort();
        self.expiry.await.ok();
    }
}

/// Deletes what has expired, from time to time, as the service does.
async fn expire(emulator: Arc<CosmosEmulator>, client: CosmosClient) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Err(error) = emulator.delete_expired(&client, now).await {
            eprintln!("documents could not be expired: {error}");
        }
    }
}

/// Serves an account until the program is interrupted, and says where.
///
/// # Errors
/// [`EmulatorError`] if it can't be served.
pub async fn serve_until_interrupted(asked: Arguments) -> Result<(), EmulatorError> {
    let hosted = HostedEmulator::start(&asked).await?;
    println!("cosmos-emulator listens at http://{} with the key {KEY}", hosted.address());
    // Without signals the program can only be killed, and then there is nothing to wait for.
    tokio::signal::ctrl_c().await.ok();
    hosted.stop().await;
    Ok(())
}

/// A client of a hosted account, over HTTP.
///
/// # Errors
/// [`EmulatorError::Client`] if nobody answers there.
pub async fn client(address: SocketAddr) -> Result<CosmosClient, EmulatorError> {
    let endpoint: AccountEndpoint = endpoint(address)?
        .as_str()
        .parse()
        .map_err(|_| EmulatorError::client(&"the address is not one of an account"))?;
    CosmosClientBuilder::new()
        .build(
            AccountReference::with_authentication_key(endpoint, KEY.to_owned()),
            RoutingStrategy::PreferredRegions(vec![Region::from(REGION)]),
        )
        .await
        .map_err(|error| EmulatorError::client(&error))
}

fn endpoint(address: SocketAddr) -> Result<Url, EmulatorError> {
    Url::parse(&format!("http://{address}/")).map_err(|error| EmulatorError::configuration(&error))
}

struct Hosted {
    emulator: Arc<CosmosEmulator>,
    endpoint: Url,
}

async fn answer(State(hosted): State<Arc<Hosted>>, request: Request) -> Response<Body> {
    match forward(&hosted, request).await {
        Ok(response) => response,
        Err(reason) => {
            let mut response = Response::new(Body::from(reason));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn forward(hosted: &Hosted, request: Request) -> Result<Response<Body>, String> {
    let (parts, body) = request.into_parts();
    let mut url = hosted.endpoint.clone();
    url.set_path(parts.uri.path());
    url.set_query(parts.uri.query());
    let method: Method = parts.method.as_str().parse().map_err(|_| "unknown method".to_owned())?;
    let mut forwarded = azure_core::http::Request::new(url, method);
    for (name, value) in &parts.headers {
        let value = value.to_str().map_err(|error| error.to_string())?.to_owned();
        forwarded.insert_header(name.as_str().to_owned(), value);
    }
    let body = to_bytes(body, REQUEST_BYTES_MAX).await.map_err(|error| error.to_string())?;
    forwarded.set_body(body);
    let answered =
        hosted.emulator.http().execute_request(&forwarded).await.map_err(|error| error.to_string())?;
    let answered = answered.try_into_raw_response().await.map_err(|error| error.to_string())?;
    let mut response = Response::new(Body::from(answered.body().to_vec()));
    *response.status_mut() =
        StatusCode::from_u16(u16::from(answered.status())).map_err(|error| error.to_string())?;
    for (name, value) in answered.headers().iter() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_str(value.as_str()).map_err(|error| error.to_string())?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
