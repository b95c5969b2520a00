#!/usr/bin/env bash
# Three Apache Kafka brokers (KRaft, each a controller too) on loopback, with TLS, SCRAM, client certificates and ACLs.
# No Docker, no root.
#
#   cluster.sh up                 start what is not running, print the addresses as shell assignments
#   cluster.sh down | wipe        stop all; wipe also deletes their data
#   cluster.sh kill N             kill -9
#   cluster.sh start N            start it again, wait until it answers
#   cluster.sh pause N | cont N   SIGSTOP, SIGCONT
#   cluster.sh status             processes, and their resident memory
#   cluster.sh env                the assignments again
#
#   BASE                     first port, 19090; node N listens on
#     BASE+N     PLAINTEXT   User:ANONYMOUS, a super user: for the test harness, not for the roles under test
#     BASE+10+N  SASL_SSL    SCRAM-SHA-512
#     BASE+20+N  SSL         a client certificate, whose CN is the user
#     BASE+30+N  CONTROLLER  for brokers and controllers
#     BASE+40+N  PROXIED     SASL_SSL, advertised as BASE+50+N, where a proxy must listen
#     BASE+60+N  BROKERS     for brokers
#   RELAYED                  1: nodes connect to each other's BROKERS at BASE+70+N and CONTROLLER at BASE+80+N, where a
#                            relay must listen
#   USERS                    SCRAM users, also names of client certificates, tidemark-ROLE; the password is NAME-secret
#   EXTRA                    more lines for server.properties; the last value of a key counts
#   TIDEMARK_CLUSTER_STATE   another folder than .cache/kafka/cluster
#   KAFKA_HEAP, KAFKA_JVM    -Xmx of each node (320m), its other JVM flags
#
# Replication factor 3, min.insync.replicas 2, no unclean elections, StandardAuthorizer. Requires what kafka.sh
# requires, and openssl.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
state=${TIDEMARK_CLUSTER_STATE:-$cache/cluster}
base=${BASE:-19090}
read -ra users <<<"${USERS:-tidemark-ingest tidemark-process tidemark-serve tidemark-operate tidemark-topics}"
export KAFKA_HEAP=${KAFKA_HEAP:-320m}
nodes=(1 2 3)

port() { echo $((base + $1)); }
list() { local n out=; for n in "${nodes[@]}"; do out+=,127.0.0.1:$(port $(($1 + n))); done; echo "${out#,}"; }

configure() { # N
	local n=$1 name at to all= advertised= brokers=60 controllers=30
	if [ -n "${RELAYED:-}" ]; then brokers=70 controllers=80; fi
	for name in PLAINTEXT:0:0 SASL_SSL:10:10 SSL:20:20 CONTROLLER:30:$controllers PROXIED:40:50 BROKERS:60:$brokers; do
		IFS=: read -r name at to <<<"$name"
		all+=,$name://127.0.0.1:$(port $((at + n))) advertised+=,$name://127.0.0.1:$(port $((to + n)))
	done
	mkdir -p "$state/$n"
	cat >"$state/$n/server.properties" <<-CONF
		process.roles=broker,controller
		node.id=$n
		controller.quorum.voters=$(for i in "${nodes[@]}"; do printf '%s' "${sep:-}$i@127.0.0.1:$(port $((controllers + i)))"; sep=,; done)
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=BROKERS
		listeners=${all#,}
		advertised.listeners=${advertised#,}
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,PROXIED:SASL_SSL,BROKERS:SSL,CONTROLLER:SSL
		log.dirs=$state/$n/data
		ssl.keystore.type=PEM
		ssl.keystore.location=$state/certs/broker.keystore.pem
		ssl.truststore.type=PEM
		ssl.truststore.location=$state/certs/ca.pem
		ssl.client.auth=required
		ssl.principal.mapping.rules=RULE:^CN=([^,]+).*\$/\$1/,DEFAULT
		sasl.enabled.mechanisms=SCRAM-SHA-512
		$(for name in sasl_ssl proxied; do
			# "required" above applies to every TLS listener: a SCRAM client would need a certificate too.
			echo "listener.name.$name.ssl.client.auth=none"
			echo "listener.name.$name.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
		done)
		authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
		super.users=User:broker;User:ANONYMOUS
		allow.everyone.if.no.acl.found=false
		default.replication.factor=3
		min.insync.replicas=2
		unclean.leader.election.enable=false
		auto.create.topics.enable=false
		offsets.topic.replication.factor=3
		offsets.topic.num.partitions=6
		transaction.state.log.replication.factor=3
		transaction.state.log.min.isr=2
		transaction.state.log.num.partitions=6
		share.coordinator.state.topic.replication.factor=3
		share.coordinator.state.topic.min.isr=2
		group.initial.rebalance.delay.ms=0
		# The log cleaner allocates this at its start. The default of 128 MB is too much for a small heap.
		log.cleaner.dedupe.buffer.size=16777216
		log.index.size.max.bytes=1048576
	CONF
	if [ -n "${EXTRA:-}" ]; then printf '%s\n' "$EXTRA" >>"$state/$n/server.properties"; fi
}

format() {
	local id scram=() user n
	for user in "${users[@]}"; do scram+=(--add-scram "SCRAM-SHA-512=[name=$user,password=$user-secret]"); done
	id=$(kafka_class error kafka.tools.StorageTool random-uuid)
	# Every node gets the same users: the first leader writes its copy into the metadata log.
	for n in "${nodes[@]}"; do
		kafka_class warn kafka.tools.StorageTool format --config "$state/$n/server.properties" --cluster-id "$id" "${scram[@]}" >>"$state/$n/log" 2>&1 ||
			{ tail -5 "$state/$n/log" >&2; die "the data folder of node $n could not be formatted"; }
	done
}

run_node() { # N
	local at
	for at in 0 10 20 30 40 60; do
		for _ in {1..50}; do # a process that was just killed keeps its ports a little longer
			(exec 3<>"/dev/tcp/127.0.0.1/$(port $((at + $1)))") 2>/dev/null || continue 2
			sleep 0.1
		done
		die "port $(port $((at + $1))) is in use: choose another BASE"
	done
	launch "$state/$1"
}

listens() { # N: on all its ports; Kafka opens them one by one, and exits if it cannot
	local at
	for at in 0 10 20 30 40 60; do (exec 3<>"/dev/tcp/127.0.0.1/$(port $((at + $1)))") 2>/dev/null || return 1; done
}

ready() { # N
	local begin=$SECONDS
	until listens "$1" && answers "$(port "$1")"; do
		kill -0 "$(<"$state/$1/pid")" 2>/dev/null || { tail -20 "$state/$1/log" >&2; die "node $1 ended; its last lines are above"; }
		[ $((SECONDS - begin)) -lt 300 ] || die "node $1 does not answer in 300 s, see $state/$1/log"
		sleep 0.1
	done
}

halt() { # N
	local pid begin=$SECONDS
	alive_in "$state/$1" || return 0
	pid=$(<"$state/$1/pid")
	kill -CONT "$pid"
	kill "$pid"
	while alive_in "$state/$1"; do
		sleep 0.1
		[ $((SECONDS - begin)) -lt 15 ] || kill -9 "$pid" 2>/dev/null || true
	done
	rm -f "$state/$1/pid"
}

print_env() {
	cat <<-ENV
		KAFKA_PLAINTEXT=$(list 0)
		KAFKA_SASL_SSL=$(list 10)
		KAFKA_SSL=$(list 20)
		KAFKA_PROXIED=$(list 40)
		KAFKA_PROXIES=$(list 50)
		KAFKA_CERTS=$state/certs
	ENV
}

case "${1:-help}" in
kill | start | pause | cont)
	n=${2:?node 1, 2 or 3}
	[ -e "$state/$n/server.properties" ] || die "no node $n in $state: cluster.sh up"
	;;
esac
case "${1:-help}" in
up)
	fetch
	mkdir -p "$state"
	"$here/certs.sh" "$state/certs" "${users[@]}"
	for n in "${nodes[@]}"; do configure "$n"; done
	[ -e "$state/1/data/meta.properties" ] || format
	for n in "${nodes[@]}"; do alive_in "$state/$n" || run_node "$n"; done
	for n in "${nodes[@]}"; do ready "$n"; done
	say "Apache Kafka $version, three nodes, after $SECONDS s, in $state"
	print_env
	;;
down | wipe)
	for n in "${nodes[@]}"; do halt "$n" & done
	wait
	if [ "$1" = wipe ] && [ -e "$state/1/server.properties" ]; then rm -rf "$state"; fi # only a folder that up created
	;;
kill)
	alive_in "$state/$n" || die "node $n is not running"
	kill -9 "$(<"$state/$n/pid")"
	rm "$state/$n/pid"
	;;
start)
	alive_in "$state/$n" || run_node "$n"
	ready "$n"
	;;
pause) kill -STOP "$(<"$state/$n/pid")" ;;
cont) kill -CONT "$(<"$state/$n/pid")" ;;
status)
	for n in "${nodes[@]}"; do
		if alive_in "$state/$n"; then
			echo "node $n: pid $(<"$state/$n/pid"), $(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$(<"$state/$n/pid")/status") MB"
		else
			echo "node $n: down"
		fi
	done
	;;
env) print_env ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
