//! Between clients and nodes.

use std::pin::Pin;
use std::sync::Mutex;

use raft_tokio::transport::{CallError, Caller, ClientConnection, ClientEndpoint};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;

type Answering = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// A service out of a closure.
struct Answer<F>(F);

impl<F: Fn(Caller, Bytes) -> Answering + Send + Sync + 'static> Service for Answer<F> {
    fn call(&self, caller: &Caller, request: Bytes) -> Answering {
        (self.0)(caller.clone(), request)
    }
}

fn echo() -> impl Service {
    Answer(|_, request| Box::pin(async move { request }) as Answering)
}

fn limits() -> Limits {
    Limits { request_bytes_max: 10_000, answer_bytes_max: 20_000, requests_in_flight_max: 32, ..Limits::DEFAULT }
}

async fn connected(service: impl Service, limits: Limits) -> (Station, ClientEndpoint, ClientConnection) {
    let authority = authority(7);
    let station = Station::serving(Options { limits: limits.clone(), ..options(&authority, peer(1, 1)) }, service);
    let clients = ClientEndpoint::new(&client_credentials(&authority), limits).expect("because a port is free");
    let connection = clients.connect(&station.address(), Some(node(1))).await.expect("because the node serves");
    (station, clients, connection)
}

#[tokio::test]
async fn a_thousand_calls_at_once_get_their_own_answers() {
    let service = Answer(|_, request: Bytes| {
        let number = u64::from_le_bytes(request[..8].try_into().expect("because it has eight bytes"));
        Box::pin(async move {
            // Some take longer than others.
            for _ in 0..number % 7 {
                tokio::task::yield_now().await;
            }
            Bytes::from((number * number).to_string())
        }) as Answering
    });
    let (_station, _clients, connection) = connected(service, limits()).await;
    let mut calls = JoinSet::new();
    for number in 0..1_000_u64 {
        let connection = connection.clone();
        calls.spawn(async move {
            let mut request = number.to_le_bytes().to_vec();
            request.resize(8 + (number as usize * 7) % 3_000, 0);
            (number, connection.call(request.into()).await)
        });
    }
    let answers = in_time("the answers", calls.join_all()).await;
    assert_eq!(answers.len(), 1_000);
    for (number, answer) in answers {
        assert_eq!(answer, Ok(Bytes::from((number * number).to_string())));
    }
}

#[tokio::test]
async fn answers_come_in_the_order_in_which_they_are_done() {
    let released = Arc::new(Notify::new());
    let service = {
        let released = released.clone();
        Answer(move |_, request: Bytes| {
            let released = released.clone();
            Box::pin(async move {
                match &request[..] {
                    b"first" => released.notified().await,
                    _ => released.notify_one(),
                }
                request
            }) as Answering
        })
    };
    let (_station, _clients, connection) = connected(service, limits()).await;
    let both = async { tokio::join!(connection.call("first".into()), connection.call("second".into())) };
    assert_eq!(in_time("both answers", both).await, (Ok("first".into()), Ok("second".into())));
}

#[tokio::test]
async fn a_service_knows_who_calls() {
    let service = Answer(|caller: Caller, _| Box::pin(async move { Bytes::from(caller.name) }) as Answering);
    let (_station, _clients, connection) = connected(service, limits()).await;
    assert_eq!(connection.node(), node(1));
    assert_eq!(in_time("the answer", connection.call(Bytes::new())).await, Ok("ops".into()));
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_connection_goes_on() {
    let service = Answer(|_, request: Bytes| {
        let bytes = if request == "much" { 20_001 } else { request.len() };
        Box::pin(async move { Bytes::from(vec![1; bytes]) }) as Answering
    });
    let (_station, _clients, connection) = connected(service, limits()).await;
    let call = |bytes: usize| connection.call(Bytes::from(vec![0; bytes]));
    assert_eq!(in_time("the refusal", call(10_001)).await, Err(CallError::TooLarge { bytes: 10_001, max: 10_000 }));
    assert_eq!(in_time("the answer", connection.call("much".into())).await, Err(CallError::AnswerTooLarge));
    assert_eq!(in_time("the answer", call(10_000)).await.map(|answer| answer.len()), Ok(10_000));
}

#[tokio::test]
async fn the_servers_limit_holds_where_it_is_the_smaller_one() {
    let authority = authority(7);
    let station = Station::serving(Options { limits: limits(), ..options(&authority, peer(1, 1)) }, echo());
    let clients =
        ClientEndpoint::new(&client_credentials(&authority), Limits::DEFAULT).expect("because a port is free");
    let connection = clients.connect(&station.address(), None).await.expect("because the node serves");
    let refused = connection.call(Bytes::from(vec![0; 10_001])).await;
    assert_eq!(refused, Err(CallError::TooLarge { bytes: 10_001, max: 10_000 }));
}

#[tokio::test]
async fn a_call_in_flight_is_unknown_when_its_connection_ends_and_the_next_is_not_sent() {
    let arrived = Arc::new(Notify::new());
    let service = {
        let arrived = arrived.clone();
        Answer(move |_, _| {
            arrived.notify_one();
            Box::pin(std::future::pending()) as Answering
        })
    };
    let (station, _clients, connection) = connected(service, limits()).await;
    let stopped = async {
        arrived.notified().await;
        station.endpoint.close().await;
    };
    let (answer, ()) = in_time("the end", async { tokio::join!(connection.call("put".into()), stopped) }).await;
    let Err(CallError::Unknown { reason }) = answer else { panic!("the call ended with {answer:?}") };
    assert!(reason.contains("shutting down"), "{reason}");
    let reason = in_time("the end", connection.closed()).await;
    assert!(connection.is_closed());
    assert_eq!(connection.call("put".into()).await, Err(CallError::NotSent { reason }));
}

#[tokio::test]
async fn an_answer_that_is_ready_at_a_shutdown_still_arrives() {
    let ready = Arc::new(Notify::new());
    let service = {
        let ready = ready.clone();
        Answer(move |_, request| {
            ready.notify_one();
            Box::pin(async move { request }) as Answering
        })
    };
    let (station, _clients, connection) = connected(service, limits()).await;
    let stopped = async {
        ready.notified().await;
        // The service's task goes on with its answer before this one goes on with the shutdown.
        tokio::task::yield_now().await;
        station.endpoint.close().await;
    };
    let (answer, ()) = in_time("the end", async { tokio::join!(connection.call("put".into()), stopped) }).await;
    assert_eq!(answer, Ok("put".into()));
}

#[tokio::test]
async fn rule_x1_a_service_that_panics_costs_one_answer() {
    let service = Answer(|_, request: Bytes| {
        assert!(request != "now", "the service cannot bear this request");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(request != "later", "the service cannot bear this request");
            request
        }) as Answering
    });
    let (_station, _clients, connection) = connected(service, limits()).await;
    for request in ["now", "later"] {
        let answer = in_time("the answer", connection.call(request.into())).await;
        assert!(matches!(answer, Err(CallError::Unknown { .. })), "{answer:?}");
        assert_eq!(in_time("the answer", connection.call("other".into())).await, Ok("other".into()));
    }
}

#[tokio::test]
async fn a_client_that_has_enough_in_flight_is_not_read_further() {
    let (waiting, release) = (Arc::new(Mutex::new((0, 0))), Arc::new(Notify::new()));
    let service = {
        let (waiting, release) = (waiting.clone(), release.clone());
        Answer(move |_, request| {
            let (waiting, release) = (waiting.clone(), release.clone());
            Box::pin(async move {
                {
                    let mut waiting = waiting.lock().expect("because nothing panics under it");
                    waiting.0 += 1;
                    waiting.1 = waiting.1.max(waiting.0);
                    if waiting.0 == 32 {
                        release.notify_one();
                    }
                }
                release.notified().await;
                release.notify_one();
                waiting.lock().expect("because nothing panics under it").0 -= 1;
                request
            }) as Answering
        })
    };
    let (_station, _clients, connection) = connected(service, limits()).await;
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let connection = connection.clone();
        calls.spawn(async move { connection.call("put".into()).await });
    }
    let answers = in_time("the answers", calls.join_all()).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(waiting.lock().expect("because nothing panics under it").1, 32);
}

#[tokio::test]
async fn all_clients_together_have_no_more_in_flight_than_the_node_can_bear() {
    let in_flight = Arc::new(Mutex::new((0, 0)));
    let service = {
        let in_flight = in_flight.clone();
        Answer(move |_, request: Bytes| {
            let in_flight = in_flight.clone();
            Box::pin(async move {
                {
                    let mut in_flight = in_flight.lock().expect("because nothing panics under it");
                    in_flight.0 += request.len();
                    in_flight.1 = in_flight.1.max(in_flight.0);
                }
                // Long enough for everybody else to come in who may.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                in_flight.lock().expect("because nothing panics under it").0 -= request.len();
                Bytes::new()
            }) as Answering
        })
    };
    let authority = authority(7);
    let limits = Limits { all_request_bytes_in_flight_max: 20 << 10, ..limits() };
    let station = Station::serving(Options { limits: limits.clone(), ..options(&authority, peer(1, 1)) }, service);
    let clients = ClientEndpoint::new(&client_credentials(&authority), limits).expect("because a port is free");
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let connection = clients.connect(&station.address(), Some(node(1))).await.expect("because the node serves");
        for _ in 0..8 {
            let connection = connection.clone();
            calls.spawn(async move { connection.call(Bytes::from(vec![0; 9 << 10])).await });
        }
    }
    let answers = in_time("the answers", calls.join_all()).await;
    assert!(answers.iter().all(Result::is_ok), "whoever had to wait is answered all the same");
    assert_eq!(in_flight.lock().expect("because nothing panics under it").1, 18 << 10, "two of nine KiB fit into 20");
}

#[tokio::test]
async fn a_call_that_is_given_up_disturbs_no_other() {
    let (_station, _clients, connection) = connected(echo(), limits()).await;
    for _ in 0..10 {
        let given_up = tokio::select! {
            biased;
            answer = connection.call("slow".into()) => Some(answer),
            () = tokio::task::yield_now() => None,
        };
        assert_eq!(given_up, None);
        assert_eq!(in_time("the answer", connection.call("next".into())).await, Ok("next".into()));
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_to_be_unresolvable() {
    let authority = authority(7);
    let clients = ClientEndpoint::new(&client_credentials(&authority), limits()).expect("because a port is free");
    for address in ["no-such-host.invalid:7400", "127.0.0.1", "localhost:port", ""] {
        let error = in_time("the error", clients.connect(address, None)).await.expect_err("because it is no address");
        assert!(matches!(error, TransportError::Resolve { .. }), "{error}");
        assert!(error.to_string().contains(&format!("'{address}'")), "{error}");
    }
}

/// Where `localhost` also means `::1`, nobody answers there.
#[tokio::test]
async fn of_several_addresses_the_one_that_answers_is_taken() {
    let authority = authority(7);
    let station = Station::serving(options(&authority, peer(1, 1)), echo());
    let clients = ClientEndpoint::new(&client_credentials(&authority), limits()).expect("because a port is free");
    let address = format!("localhost:{}", station.endpoint.local_addr().port());
    let connection = in_time("the handshake", clients.connect(&address, None)).await;
    assert_eq!(connection.expect("because it listens at one of them").node(), node(1));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_connection() {
    let gone = Arc::new(Notify::new());
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let arrived = Arc::new(Notify::new());
    let service = {
        let (gone, arrived) = (gone.clone(), arrived.clone());
        Answer(move |_, _| {
            let gone = OnDrop(gone.clone());
            arrived.notify_one();
            Box::pin(async move {
                let _gone = gone;
                std::future::pending().await
            }) as Answering
        })
    };
    let (_station, _clients, connection) = connected(service, limits()).await;
    tokio::select! {
        answer = connection.call("put".into()) => panic!("answered {answer:?}"),
        () = arrived.notified() => {}
    }
    drop(connection);
    in_time("the end of the request", gone.notified()).await;
}
