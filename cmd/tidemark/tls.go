package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// trusted returns the TLS settings that trust the certificates of a file only; nil without a file.
func trusted(flag, file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, usagef("%s: %s has no PEM certificate", flag, file)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// roots returns the certificates of a file; nil without a file.
func roots(flag, file string) (*x509.CertPool, error) {
	config, err := trusted(flag, file)
	if config == nil {
		return nil, err
	}
	return config.RootCAs, err
}
