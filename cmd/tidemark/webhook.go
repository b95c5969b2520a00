package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tidemark/ingress"
)

// webhookFlags say how webhooks are signed. Sender and receiver share them.
type webhookFlags struct {
	WebhookSecretsFile     string `help:"File of the active secrets, one per line: secret, or workspace=secret; or set TIDEMARK_WEBHOOK_SECRETS, separated by commas." placeholder:"FILE" group:"Webhooks"`
	WebhookScheme          string `help:"Signature scheme of webhooks: fastio, fastio-v1, fastio-x or standard-webhooks." default:"fastio" enum:"fastio,fastio-v1,fastio-x,standard-webhooks" placeholder:"NAME" aliases:"scheme" group:"Webhooks"`
	WebhookTimestampHeader string `help:"Header of the signed time, for fastio-x; X-Fastio-Timestamp if left out." placeholder:"NAME" group:"Webhooks"`
}

const secretsVariable = "TIDEMARK_WEBHOOK_SECRETS"

// errNoSecrets is returned when neither the file nor the variable is given.
var errNoSecrets = fmt.Errorf("no webhook secret is given: set %s or --webhook-secrets-file", secretsVariable)

func (f webhookFlags) scheme() (ingress.Scheme, error) {
	scheme, err := ingress.ParseScheme(f.WebhookScheme, f.WebhookTimestampHeader)
	if err != nil {
		return scheme, usageError{err}
	}
	return scheme, nil
}

// secrets returns the secrets that were given, or errNoSecrets.
func (f webhookFlags) secrets(scheme ingress.Scheme) ([]ingress.Secret, error) {
	list := os.Getenv(secretsVariable)
	switch {
	case list != "" && f.WebhookSecretsFile != "":
		return nil, usagef("--webhook-secrets-file and %s are both given: drop one", secretsVariable)
	case list != "":
		secrets, err := ingress.ParseSecrets(scheme, list)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", secretsVariable, err)
		}
		return secrets, nil
	case f.WebhookSecretsFile != "":
		return ingress.ReadSecretsFile(scheme, f.WebhookSecretsFile)
	}
	return nil, errNoSecrets
}

// secretsOrDevs returns the secrets that were given, else the one in dev's data directory, else errNoSecrets.
func (f webhookFlags) secretsOrDevs(scheme ingress.Scheme, data string) ([]ingress.Secret, error) {
	secrets, err := f.secrets(scheme)
	if !errors.Is(err, errNoSecrets) {
		return secrets, err
	}
	secrets, err = ingress.ReadSecretsFile(scheme, devSecretFile(data, scheme))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w, or start tidemark dev, which generates one: %w", errNoSecrets, err)
	}
	return secrets, err
}

// devSecretFile returns the file of dev's generated secret. Secrets of standard-webhooks have another format, and a
// file of their own.
func devSecretFile(data string, scheme ingress.Scheme) string {
	if scheme.Name() == ingress.StandardWebhooks {
		return filepath.Join(data, "webhook-secret-standard")
	}
	return filepath.Join(data, "webhook-secret")
}

// devSecret returns the secret in the data directory, which the first call generates.
func devSecret(data string, scheme ingress.Scheme) (string, error) {
	path := devSecretFile(data, scheme)
	kept, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(kept)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the webhook secret: %w", err)
	}
	var random [30]byte
	rand.Read(random[:]) // never fails
	secret := "tidemark_" + base64.RawURLEncoding.EncodeToString(random[:])
	if scheme.Name() == ingress.StandardWebhooks {
		secret = "whsec_" + base64.StdEncoding.EncodeToString(random[:])
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return "", fmt.Errorf("create the data directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the webhook secret: %w", err)
	}
	return secret, nil
}
