#!/usr/bin/env bash
# One Apache Kafka broker (KRaft) on free loopback ports, from its published jars. No Docker, no root.
#
#   kafka.sh jars              fetch the jars once, print their folder
#   kafka.sh start             start the broker unless it runs, print `export KAFKA_BROKERS=..`
#   kafka.sh stop | wipe       stop it; wipe also deletes its data
#   kafka.sh env               print the exports again
#   kafka.sh run COMMAND ..    a new broker for one command, deleted afterwards
#   kafka.sh tool CLASS ..     one of Kafka's own commands, with KAFKA_BROKERS as its --bootstrap-server
#   kafka.sh connect FILE ..   Kafka Connect standalone, with the properties of a worker and of its connectors
#
# Requires Java 17 or newer, and Maven the first time. Jars and state are kept in .cache/kafka of the checkout.
#
#   KAFKA_BROKERS        printed by start: a listener without authentication
#   KAFKA_SASL_BROKERS   a listener with SCRAM-SHA-512, user tidemark, password tidemark-secret
#   KAFKA_PID            printed by start: the broker's process, for the benchmarks
#   KAFKA_LOG            least level that connect logs, warn
#   KAFKA_HEAP, KAFKA_JVM, TIDEMARK_KAFKA_STATE   its -Xmx, its other JVM flags, another folder than .cache/kafka/broker
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
state=${TIDEMARK_KAFKA_STATE:-$cache/broker}
alive() { alive_in "$state"; }

# Below the kernel's ephemeral ports, so that no client connection takes the port before the broker does.
free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM % 12000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

configure() { # PLAIN SASL CONTROLLER, three ports; written at each start, the data stays
	cat >"$state/server.properties" <<-CONF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$3
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=PLAINTEXT
		listeners=PLAINTEXT://127.0.0.1:$1,SASL_PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
		sasl.enabled.mechanisms=SCRAM-SHA-512
		listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
		log.dirs=$state/data
		# A topic that does not exist is an error, as in production.
		auto.create.topics.enable=false
		# The defaults of the internal topics are three replicas and many partitions.
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=4
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=4
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		group.initial.rebalance.delay.ms=0
		# The log cleaner allocates this at its start. The default would be half of the heap below.
		log.cleaner.dedupe.buffer.size=16777216
		# Tests create many partitions, and each preallocates its indexes.
		log.index.size.max.bytes=1048576
	CONF
}

start() {
	if alive; then
		say "runs already, pid $(<"$state/pid")"
		return
	fi
	fetch
	local plain sasl controller begin=$SECONDS
	plain=$(free_port) sasl=$(free_port) controller=$(free_port)
	mkdir -p "$state"
	configure "$plain" "$sasl" "$controller"
	if [ ! -e "$state/data/meta.properties" ]; then
		kafka_class warn kafka.tools.StorageTool format --config "$state/server.properties" \
			--cluster-id "$(kafka_class error kafka.tools.StorageTool random-uuid)" \
			--add-scram 'SCRAM-SHA-512=[name=tidemark,password=tidemark-secret]' >"$state/log" 2>&1 ||
			{ cat "$state/log" >&2; die 'the data folder could not be formatted'; }
	fi
	launch "$state"
	printf 'export KAFKA_BROKERS=127.0.0.1:%s\nexport KAFKA_SASL_BROKERS=127.0.0.1:%s\nexport KAFKA_PID=%s\n' \
		"$plain" "$sasl" "$(<"$state/pid")" >"$state/env"
	until answers "$plain"; do
		sleep 0.2
		if ! kill -0 "$(<"$state/pid")" 2>/dev/null; then
			tail -20 "$state/log" >&2
			die 'the broker exited; its last lines are above'
		fi
		[ $((SECONDS - begin)) -lt 90 ] || { stop; die "no answer in 90 s, see $state/log"; }
	done
	say "Apache Kafka $version on 127.0.0.1:$plain after $((SECONDS - begin)) s, pid $(<"$state/pid"), state in $state"
}

stop() {
	if alive; then
		local pid begin=$SECONDS
		pid=$(<"$state/pid")
		kill "$pid"
		while alive; do
			sleep 0.1
			[ $((SECONDS - begin)) -lt 20 ] || kill -9 "$pid" 2>/dev/null || true
		done
	fi
	rm -f "$state/pid" "$state/env"
}

wipe() {
	stop
	if [ -e "$state/server.properties" ]; then rm -rf "$state"; fi # only a folder that start created
}

case "${1:-help}" in
jars) fetch && echo "$jars" ;;
start) start && cat "$state/env" ;;
stop) stop ;;
wipe) wipe ;;
env) alive || die 'not running: kafka.sh start'; cat "$state/env" ;;
run)
	shift
	[ $# -gt 0 ] || die 'run what?'
	state=$(mktemp -d)/broker
	trap 'wipe; rmdir "$(dirname "$state")"' EXIT
	trap 'exit 130' INT TERM
	start
	source "$state/env"
	"$@"
	;;
tool)
	shift
	[ $# -gt 0 ] || die 'which class? for example org.apache.kafka.tools.TopicCommand --list'
	fetch
	[ -n "${KAFKA_BROKERS:-}" ] || source "$state/env"
	kafka_class warn "$1" --bootstrap-server "$KAFKA_BROKERS" "${@:2}"
	;;
connect)
	shift
	[ $# -gt 0 ] || die 'which worker and connectors? for example deploy/connect/worker.properties deploy/connect/file.properties'
	fetch
	read -ra flags <<<"${KAFKA_JVM:--XX:+UseSerialGC}"
	exec java "-Xmx${KAFKA_HEAP:-512m}" "${flags[@]}" -Dtidemark.level="${KAFKA_LOG:-warn}" \
		-Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$jars/*" \
		org.apache.kafka.connect.cli.ConnectStandalone "$@"
	;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
