#!/usr/bin/env bash
# Writes test certificates in PEM: certs.sh FOLDER NAME... Does nothing when the folder is complete.
#
#   ca.pem                the authority that clients and brokers trust
#   broker.{pem,key}      for localhost and 127.0.0.1, as server and as client, because brokers connect to each other
#   NAME.{pem,key}        a client signed by the same authority: the principal User:NAME
#   stranger.{pem,key}    a client signed by another authority, which must be refused
#   broker.keystore.pem   key and certificate in one file, as Kafka reads them
set -euo pipefail
umask 077
dir=${1:?folder}
shift
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
cd "$dir"

# Kafka reads only PKCS#8, which genpkey writes.
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
authority() { # NAME
	key "$1"
	openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 3650 -out "$1.pem" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}
signed() { # NAME AUTHORITY EXTENSION..
	local name=$1 by=$2
	shift 2
	key "$name"
	openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
	openssl x509 -req -in "$name.csr" -CA "$by.pem" -CAkey "$by.key" -set_serial "0x$(openssl rand -hex 8)" -days 825 \
		-extfile <(printf '%s\n' basicConstraints=CA:FALSE "$@") -out "$name.pem" 2>/dev/null
	rm "$name.csr"
}

authority ca
authority otherca
signed broker ca subjectAltName=DNS:localhost,IP:127.0.0.1 extendedKeyUsage=serverAuth,clientAuth
for name in "$@"; do signed "$name" ca extendedKeyUsage=clientAuth; done
signed stranger otherca extendedKeyUsage=clientAuth
cat broker.key broker.pem >broker.keystore.pem
touch complete
