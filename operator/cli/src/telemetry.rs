//! Traces over OTLP (protobuf, HTTP): each record's way as one trace. Off unless an endpoint is named, by `--otlp-endpoint` or the standard
//! OTEL_EXPORTER_OTLP_* variables; OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_BSP_* count too.
//!
//! The engine tells finished steps with their ids; here they become spans and go out in batches. When the collector is away or slow, spans
//! are dropped, never records.

use anyhow::Context as _;
use async_trait::async_trait;
use fairlead_engine::way::{Step, Witness};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Config, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use std::sync::Arc;
use std::time::Duration;

/// The longest answer of a collector that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// One export may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends steps as spans.
#[derive(Debug)]
pub(crate) struct Traces {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

impl Traces {
    /// Starts sending, if an endpoint is named. Needs a runtime.
    pub(crate) fn start(endpoint: Option<&str>) -> anyhow::Result<Option<Arc<Self>>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().any(|name| variable(name).is_some());
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if off || (endpoint.is_none() && !named) {
            return Ok(None);
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()?;
        let post = Post { client, runtime: tokio::runtime::Handle::current() };
        let mut exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(post);
        if let Some(endpoint) = endpoint {
            exporter = exporter.with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')));
        }
        let exporter =
            exporter.build().context("--otlp-endpoint: traces cannot be sent there; name a URL such as http://collector:4318")?;
        // What the standard variables say; the name is ours unless they give another.
        let config = Config::default();
        let resource = if variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|a| a.contains("service.name"))
        {
            config.resource.into_owned()
        } else {
            opentelemetry_sdk::Resource::builder().with_service_name("fairlead").build()
        };
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource);
        let scope = InstrumentationScope::builder("fairlead").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Some(Arc::new(Self { processor, sampler: config.sampler, scope })))
    }

    /// Sends what waits, and ends.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(Duration::from_secs(5)) {
            tracing::warn!(%error, "not all traces were sent");
        }
    }
}

impl Witness for Traces {
    fn wants(&self, trace: [u8; 16]) -> bool {
        let sampled = self.sampler.should_sample(None, TraceId::from_bytes(trace), "record", &SpanKind::Internal, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }

    fn saw(&self, step: Step) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("fairlead.integration", step.integration.to_string()),
            KeyValue::new("fairlead.participant", step.participant.to_string()),
            KeyValue::new("fairlead.record.id", step.record.to_string()),
            KeyValue::new("fairlead.record.version", number(step.version)),
            KeyValue::new("fairlead.batch.size", number(step.batch as u64)),
        ];
        attributes.extend(step.outcome.map(|outcome| KeyValue::new("fairlead.outcome", outcome)));
        let id = SpanId::from_bytes(step.id);
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(TraceId::from_bytes(step.trace), id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: step.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: match step.name {
                "read" | "write" => SpanKind::Client,
                "deliver" => SpanKind::Consumer,
                _ => SpanKind::Internal,
            },
            name: step.name.into(),
            start_time: step.start,
            end_time: step.end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if step.failed { Status::error("the record was not delivered") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// Sends over this program's own HTTP client, on its runtime: the exporter's thread has none.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await? {
                if body.len() + piece.len() > MAX_ANSWER {
                    return Err(HttpError::from("the collector's answer is too long"));
                }
                body.extend_from_slice(&piece);
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            Ok(response)
        });
        sending.await?
    }
}
