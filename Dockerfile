# syntax=docker/dockerfile:1
# The image for those who have a container engine: `docker build -t fairlead .`. `make image` makes the same one
# without. Keep the two alike.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The flags are for the last crate alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo rustc --locked --package fairlead-cli --bin fairlead --profile release -- -C target-feature=+crt-static -C strip=debuginfo \
    && install -D -m 755 target/release/fairlead /image/usr/bin/fairlead \
    && install -d -m 1777 /image/tmp \
    && install -d -m 755 -o 65532 -g 65532 /image/var/lib/fairlead \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && echo 'fairlead:x:65532:65532:Fairlead:/var/lib/fairlead:/sbin/nologin' > /image/etc/passwd \
    && echo 'fairlead:x:65532:' > /image/etc/group \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /var/lib/fairlead
ENV PATH=/usr/bin FAIRLEAD_STATE=/var/lib/fairlead
EXPOSE 8080 8443
LABEL org.opencontainers.image.title="fairlead" org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/usr/bin/fairlead"]
