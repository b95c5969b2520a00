package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/IBM/sarama"
)

// TLSConfig configures TLS, and a client certificate. All files are PEM.
type TLSConfig struct {
	Enabled  bool
	CAFile   string // authorities that sign the brokers' certificates; empty: the system's
	CertFile string // the client's own certificate, with KeyFile
	KeyFile  string
}

func (t TLSConfig) validate() error {
	switch {
	case !t.Enabled && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != ""):
		return errors.New("a CA, certificate or key file is given for Kafka but TLS is off: switch TLS on, or leave " +
			"the files out")
	case (t.CertFile == "") != (t.KeyFile == ""):
		return errors.New("a client certificate for Kafka needs both its certificate file and its key file")
	}
	return nil
}

// client returns the settings of a TLS client. Files that cannot be used are refused here, not at the first connection.
func (t TLSConfig) client() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the Kafka CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the Kafka CA file %q holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile == "" {
		return config, nil
	}
	if _, err := t.certificate(nil); err != nil {
		return nil, err
	}
	// Not Certificates: from there Go does not send a certificate whose authority the broker does not name, and the
	// broker would report a missing certificate instead of a wrong one. Reading the file at each handshake also picks
	// up a renewed one.
	config.GetClientCertificate = t.certificate
	return config, nil
}

func (t TLSConfig) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the Kafka client certificate %q with key %q: %w", t.CertFile, t.KeyFile, err)
	}
	return &pair, nil
}

func (t TLSConfig) sarama(s *sarama.Config) error {
	if !t.Enabled {
		return nil
	}
	config, err := t.client()
	if err != nil {
		return err
	}
	s.Net.TLS.Enable, s.Net.TLS.Config = true, config
	return nil
}
