# Sourced by kafka.sh and cluster.sh: fetches the jars, starts a JVM, checks that a broker is ours and answers.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=4.1.0
cache=$(cd "$here/../.." && pwd)/.cache/kafka
jars=$cache/jars-$version

say() { printf 'kafka: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

need_java() {
	command -v java >/dev/null || die 'java is missing: install a JRE, version 17 or newer (Debian: apt install openjdk-17-jre-headless)'
	local spec
	spec=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.specification.version = //p')
	[ "${spec%%.*}" -ge 17 ] 2>/dev/null || die "java is version ${spec:-unknown}: Kafka $version needs 17 or newer"
}

fetch() {
	need_java
	cmp -s "$here/pom.xml" "$jars/complete" && return
	command -v mvn >/dev/null || die 'mvn is missing: install Maven (Debian: apt install maven) to fetch the jars'
	say "fetching Apache Kafka $version, about 50 MB"
	mkdir -p "$jars"
	mvn --quiet --batch-mode -Dstyle.color=never --file "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
		-DoutputDirectory="$jars" >&2
	cp "$here/pom.xml" "$jars/complete" # an incomplete copy is fetched again, and that of another list of jars
}

kafka_class() { # LEVEL CLASS ARG..
	local level=$1
	shift
	java -Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dtidemark.level="$level" \
		-Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$jars/*" "$@"
}

# A pid may be reused by another program: ours has our file on its command line. A zombie process has none.
alive_in() { [ -s "$1/pid" ] && grep -qsaF "$1/server.properties" "/proc/$(<"$1/pid")/cmdline"; } # FOLDER

# An open port is not a ready broker yet: request its API versions, and wait for the answer.
answers() { # PORT
	local n
	n=$(timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "\0\0\0\12\0\22\0\0\0\0\0\1\377\377" >&3 && head -c 4 <&3 | wc -c' "$1" 2>/dev/null) && [ "$n" -eq 4 ]
}

# launch FOLDER: the server that FOLDER/server.properties describes; its pid in FOLDER/pid, its output in FOLDER/log.
launch() {
	# Serial GC and one compiler tier start fastest. KAFKA_JVM replaces them, for throughput.
	local flags
	read -ra flags <<<"${KAFKA_JVM:--XX:+UseSerialGC -XX:TieredStopAtLevel=1}"
	# A session of its own: Ctrl-C in a terminal reaches only the tests, which then stop the broker.
	setsid java -Xms128m "-Xmx${KAFKA_HEAP:-512m}" "${flags[@]}" -XX:+ExitOnOutOfMemoryError \
		-Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$jars/*" \
		kafka.Kafka "$1/server.properties" >>"$1/log" 2>&1 </dev/null &
	echo $! >"$1/pid"
}
