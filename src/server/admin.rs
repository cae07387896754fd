pub async fn serve(_l: tokio::net::TcpListener, _s: std::sync::Arc<super::Server>) {
    std::future::pending::<()>().await
}
