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

// logFlags say how a long-running command logs.
type logFlags struct {
	LogLevel  slog.Level `help:"Least level that is logged: debug, info, warn or error." default:"${log_level}" placeholder:"LEVEL"`
	LogFormat string     `help:"Form of the log on stderr: auto is text on a terminal, else json." enum:"auto,json,text" default:"auto"`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	return telemetry.NewLogger(w, f.LogFormat, f.LogLevel)
}

// securityFlags say how to prove who we are to a cluster, and it to us.
type securityFlags struct {
	KafkaTLS              bool   `help:"Speak TLS to the brokers." name:"kafka-tls" group:"Kafka"`
	KafkaCAFile           string `help:"PEM file of the authorities to trust instead of the system's." name:"kafka-ca-file" placeholder:"FILE" group:"Kafka"`
	KafkaCertFile         string `help:"PEM file of the client's certificate." placeholder:"FILE" group:"Kafka"`
	KafkaKeyFile          string `help:"PEM file of the client's private key." placeholder:"FILE" group:"Kafka"`
	KafkaSASLMechanism    string `help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none." name:"kafka-sasl-mechanism" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:"" placeholder:"NAME" group:"Kafka"`
	KafkaSASLUser         string `help:"User for SASL." name:"kafka-sasl-user" placeholder:"USER" group:"Kafka"`
	KafkaSASLPasswordFile string `help:"File with the password for SASL; or set TIDEMARK_KAFKA_SASL_PASSWORD." name:"kafka-sasl-password-file" placeholder:"FILE" group:"Kafka"`
}

const passwordVariable = "TIDEMARK_KAFKA_SASL_PASSWORD"

// config returns how to reach brokers.
func (f securityFlags) config(brokers []string) (kafka.Config, error) {
	config := kafka.Config{
		Brokers:  brokers,
		ClientID: "tidemark",
		TLS:      kafka.TLSConfig{Enabled: f.KafkaTLS, CAFile: f.KafkaCAFile, CertFile: f.KafkaCertFile, KeyFile: f.KafkaKeyFile},
		SASL:     kafka.SASLConfig{Mechanism: f.KafkaSASLMechanism, User: f.KafkaSASLUser, Password: os.Getenv(passwordVariable)},
	}
	if f.KafkaSASLPasswordFile != "" {
		if config.SASL.Password != "" {
			return config, usagef("--kafka-sasl-password-file and %s are both given: drop one", passwordVariable)
		}
		password, err := os.ReadFile(f.KafkaSASLPasswordFile)
		if err != nil {
			return config, fmt.Errorf("read the SASL password: %w", err)
		}
		config.SASL.Password = strings.TrimRight(string(password), "\r\n")
	}
	if _, err := config.Franz(); err != nil { // the settings contradict each other: say so before anything starts
		return config, usageError{err}
	}
	return config, nil
}

// clusterFlags say which cluster a command talks to.
type clusterFlags struct {
	Brokers []string `help:"Addresses of some brokers of the cluster." default:"127.0.0.1:9092" placeholder:"HOST:PORT" address:"dial" group:"Kafka"`
	securityFlags
}

func (f clusterFlags) config() (kafka.Config, error) { return f.securityFlags.config(f.Brokers) }

// prefixFlags say which of a cluster's topics are tidemark's.
type prefixFlags struct {
	TopicPrefix string `help:"What the names of all topics and groups begin with." default:"fastio" placeholder:"NAME" group:"Kafka"`
}

// names is for who needs names only: partitions are the cluster's to tell.
func (f prefixFlags) names() (topology.Streams, error) {
	streams, err := topology.New(f.TopicPrefix, topology.Single)
	if err != nil {
		return streams, usageError{err}
	}
	return streams, nil
}

// sizingFlags say how large the topics must be.
type sizingFlags struct {
	prefixFlags
	Partitions  int `help:"Partitions of every topic." default:"32" placeholder:"N" group:"Kafka"`
	Replication int `help:"Replicas of every topic${unset}." default:"${replication}" placeholder:"N" group:"Kafka"`
	MinInsync   int `help:"Replicas that must hold a record before it counts${unset}." default:"${min_insync}" placeholder:"N" group:"Kafka"`
}

func (f sizingFlags) streams() (topology.Streams, error) {
	streams, err := topology.New(f.TopicPrefix, topology.Sizing{Partitions: f.Partitions, Replication: f.Replication, MinISR: f.MinInsync})
	if err != nil {
		return streams, usageError{err}
	}
	return streams, nil
}
