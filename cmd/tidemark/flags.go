package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"tidemark/kafka"
	"tidemark/telemetry"
	"tidemark/topology"
)

// logFlags are the log settings of a long-running command.
type logFlags struct {
	LogLevel  slog.Level `help:"Lowest level that is logged: debug, info, warn or error." default:"${log_level}" placeholder:"LEVEL"`
	LogFormat string     `help:"Format of the log on stderr: auto is text on a terminal, else json." enum:"auto,json,text" default:"auto"`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	return telemetry.NewLogger(w, f.LogFormat, f.LogLevel)
}

// securityFlags are the TLS and SASL settings of the Kafka clients.
type securityFlags struct {
	KafkaTLS              bool   `help:"Use TLS." name:"kafka-tls" group:"Kafka"`
	KafkaCAFile           string `help:"PEM file of the CA certificates to trust instead of the system's." name:"kafka-ca-file" placeholder:"FILE" group:"Kafka"`
	KafkaCertFile         string `help:"PEM file of the client certificate." placeholder:"FILE" group:"Kafka"`
	KafkaKeyFile          string `help:"PEM file of the client certificate's private key." placeholder:"FILE" group:"Kafka"`
	KafkaSASLMechanism    string `help:"SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none." name:"kafka-sasl-mechanism" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:"" placeholder:"NAME" group:"Kafka"`
	KafkaSASLUser         string `help:"SASL user." name:"kafka-sasl-user" placeholder:"USER" group:"Kafka"`
	KafkaSASLPasswordFile string `help:"File with the SASL password; or set TIDEMARK_KAFKA_SASL_PASSWORD." name:"kafka-sasl-password-file" placeholder:"FILE" group:"Kafka"`
}

const passwordVariable = "TIDEMARK_KAFKA_SASL_PASSWORD"

// config returns the client settings for these brokers.
func (f securityFlags) config(brokers []string) (kafka.Config, error) {
	config := kafka.Config{
		Brokers:  brokers,
		ClientID: "tidemark",
		TLS: kafka.TLSConfig{
			Enabled: f.KafkaTLS, CAFile: f.KafkaCAFile, CertFile: f.KafkaCertFile,
			KeyFile: f.KafkaKeyFile,
		},
		SASL: kafka.SASLConfig{
			Mechanism: f.KafkaSASLMechanism, User: f.KafkaSASLUser,
		},
	}
	password, err := secret(passwordVariable, "--kafka-sasl-password-file", f.KafkaSASLPasswordFile)
	if err != nil {
		return config, err
	}
	config.SASL.Password = password
	if _, err := config.Franz(); err != nil { // the settings contradict each other
		return config, usageError{err}
	}
	return config, nil
}

// secret returns a secret from the environment or from the file that a flag names; empty if neither is given.
func secret(variable, flag, file string) (string, error) {
	value := os.Getenv(variable)
	switch {
	case file == "":
		return value, nil
	case value != "":
		return "", usagef("%s and %s are both given: drop one", flag, variable)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// clusterFlags are the settings of the Kafka cluster.
type clusterFlags struct {
	Brokers []string `help:"Bootstrap servers: addresses of some brokers." default:"127.0.0.1:9092" placeholder:"HOST:PORT" address:"dial" group:"Kafka"`
	securityFlags
}

func (f clusterFlags) config() (kafka.Config, error) { return f.securityFlags.config(f.Brokers) }

// prefixFlags select the topics and groups of one installation.
type prefixFlags struct {
	TopicPrefix string `help:"Prefix of the names of all topics and groups." default:"fastio" placeholder:"NAME" group:"Kafka"`
}

// names returns the streams for commands that need only their names: the sizing is not the cluster's.
func (f prefixFlags) names() (topology.Streams, error) {
	streams, err := topology.New(f.TopicPrefix, topology.Single)
	if err != nil {
		return streams, usageError{err}
	}
	return streams, nil
}

// sizingFlags are the sizing that the topics must have.
type sizingFlags struct {
	prefixFlags
	Partitions  int `help:"Partitions of every topic." default:"32" placeholder:"N" group:"Kafka"`
	Replication int `help:"Replication factor of every topic${unset}." default:"${replication}" placeholder:"N" group:"Kafka"`
	MinInsync   int `help:"min.insync.replicas of every topic${unset}." default:"${min_insync}" placeholder:"N" group:"Kafka"`
}

func (f sizingFlags) streams() (topology.Streams, error) {
	streams, err := topology.New(f.TopicPrefix,
		topology.Sizing{Partitions: f.Partitions, Replication: f.Replication, MinISR: f.MinInsync})
	if err != nil {
		return streams, usageError{err}
	}
	return streams, nil
}

// installationFlags are the settings of commands that use an installation's topics as they are.
type installationFlags struct {
	clusterFlags
	prefixFlags
}

// connect returns the client settings and the names of the topics.
func (f installationFlags) connect() (config kafka.Config, streams topology.Streams, err error) {
	if config, err = f.config(); err == nil {
		streams, err = f.names()
	}
	return config, streams, err
}

// sizedFlags are the settings of commands that check the topics, or create them.
type sizedFlags struct {
	clusterFlags
	sizingFlags
}

// connect returns the client settings and the topics as they must be.
func (f sizedFlags) connect() (config kafka.Config, streams topology.Streams, err error) {
	if config, err = f.config(); err == nil {
		streams, err = f.streams()
	}
	return config, streams, err
}
