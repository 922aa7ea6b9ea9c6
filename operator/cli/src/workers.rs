//! A process that plans for workers: its flags, and who is let in.

use anyhow::Context as _;
use async_trait::async_trait;
use clap::Args;
use fairlead_controller::Judged;
use fairlead_fleet::{Admission, Bearer, Planner, Refusal};
use fairlead_model::{SystemClock, SystemRandom};
use fairlead_store::Store;
use std::net::SocketAddr;
use std::sync::Arc;

/// How workers get their units.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlannerArgs {
    /// Only plan, and serve the units here to workers (`fairlead worker`), which read and write in this process's place. The state must lie in
    /// PostgreSQL.
    #[arg(long, env = "FAIRLEAD_WORKERS_LISTEN", value_name = "ADDR")]
    pub(crate) workers_listen: Option<SocketAddr>,
}

impl PlannerArgs {
    /// Whether this process reads and writes itself.
    pub(crate) const fn works(&self) -> bool {
        self.workers_listen.is_none()
    }

    /// Serves workers, if there are to be any; `admission` tells who is one.
    pub(crate) async fn start<A: Admission>(
        &self,
        store: &Arc<dyn Store>,
        admission: impl FnOnce() -> anyhow::Result<A>,
    ) -> anyhow::Result<Option<Arc<Planner>>> {
        let Some(address) = self.workers_listen else { return Ok(None) };
        is_shared(store.as_ref())?;
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; choose another address with --workers-listen"))?;
        let planner = Planner::start(Arc::clone(store), Arc::new(SystemClock), Arc::new(SystemRandom), admission()?);
        tracing::info!(address = %listener.local_addr()?, "planning only; workers are served their units");
        let serving = Arc::clone(&planner);
        tokio::spawn(async move {
            if let Err(error) = serving.serve(listener).await {
                tracing::error!(%error, "workers are no longer served");
            }
        });
        Ok(Some(planner))
    }
}

/// Workers meet in a database.
pub(crate) fn is_shared(store: &dyn Store) -> anyhow::Result<()> {
    anyhow::ensure!(
        store.partitions() > 1,
        "several processes share the work only where the state lies in PostgreSQL; name a database with --database-url-file or FAIRLEAD_DATABASE_URL"
    );
    Ok(())
}

/// Workers of a cluster: they show a token of their service account that was made for this, which the API server judges.
pub(crate) struct ClusterTokens(pub(crate) fairlead_controller::WorkerTokens);

#[async_trait]
impl Admission for ClusterTokens {
    async fn admit(&self, token: &str) -> Result<Bearer, Refusal> {
        match self.0.judge(token).await {
            Judged::Worker { pod } => Ok(Bearer { pod }),
            Judged::Stranger => Err(Refusal::Denied),
            Judged::Unknown => Err(Refusal::Unavailable),
        }
    }
}
