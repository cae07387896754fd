# A node in a container. Data is in /data; clients on 6379, nodes on 16379, metrics on 26379.
#
#   docker build -t redynamo .
#   docker run -p 6379:6379 -v data:/data redynamo
#   docker run --restart on-failure redynamo     (a disk that hangs ends the process, with one line that says so)
#   docker run redynamo --requirepass secret --maxmemory 1gb
#
# A cluster also needs --cluster-secret, the same on every node, and --join <another node's name>.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN groupadd --system --gid 999 redynamo \
    && useradd --system --uid 999 --gid redynamo --home-dir /data redynamo \
    && install -d -o redynamo -g redynamo /data
COPY --from=build /src/target/release/redynamo /usr/local/bin/redynamo
COPY --from=build /src/LICENSE /src/redynamo.conf /usr/share/doc/redynamo/
USER redynamo
WORKDIR /data
VOLUME /data
EXPOSE 6379 16379 26379

# The container's network is the boundary, as with the image of Redis: set a password before publishing the port.
ENV REDYNAMO_BIND="* -::*" REDYNAMO_DIR=/data REDYNAMO_PROTECTED_MODE=no

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["redynamo", "ping"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["redynamo"]
