package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/auth"
)

// Values of --auth. Empty means none on loopback, and no access elsewhere.
const (
	authNone   = "none"
	authTokens = "tokens"
	authJWT    = "jwt"
)

// authFlags are the settings of who may use the query API and the admin address.
type authFlags struct {
	Auth          string `help:"How requests to the query API and the admin address are authorized: none, tokens (--tokens-file) or jwt. Needed where the query API is not on loopback; /healthz, /readyz and /metrics are always open." enum:",none,tokens,jwt" default:"" placeholder:"HOW" group:"Auth"`
	TokensFile    string `help:"YAML file of tokens, see tidemark token hash. It is read again when it changes." placeholder:"FILE" group:"Auth"`
	JWKS          string `help:"Public keys of JWTs with RS256 or ES256." name:"jwks" placeholder:"FILE|URL" group:"Auth"`
	JWTIssuer     string `help:"Claim iss that a JWT must have." name:"jwt-issuer" placeholder:"NAME" group:"Auth"`
	JWTAudience   string `help:"Claim aud that a JWT must have." name:"jwt-audience" placeholder:"NAME" group:"Auth"`
	JWTSecretFile string `help:"File with the secret of JWTs with HS256, of 32 bytes at least; or set TIDEMARK_JWT_SECRET." name:"jwt-secret-file" placeholder:"FILE" group:"Auth"`
}

const jwtSecretVariable = "TIDEMARK_JWT_SECRET"

// checkAPI refuses to open the query API to other hosts when nobody said who may use it.
func (f authFlags) checkAPI(addr string) error {
	if f.Auth == "" && !loopback(addr) {
		return usagef("--api-addr %s: other hosts can reach it, and --auth is not set: use --auth tokens with "+
			"--tokens-file, --auth jwt with --jwks, or a loopback address like 127.0.0.1:8080. --auth none lets "+
			"everyone who can reach the address read all workspaces", addr)
	}
	return nil
}

// warn logs that everyone may use an address.
func (f authFlags) warn(log *slog.Logger, flag, addr string) {
	if f.Auth == authNone && !loopback(addr) {
		log.Warn("--auth none: everyone who can reach the address has access", "flag", flag, "addr", addr)
	}
}

// guards returns the guards of the query API and of the admin address; nil: no tokens are needed. Where --auth is not
// set, the admin address starts all the same: an upgrade must not stop the probes.
func (f authFlags) guards(ctx context.Context, adminAddr string, log *slog.Logger, metrics prometheus.Registerer) (
	api, admin *auth.Guard, err error,
) {
	log = log.With("role", "auth")
	verifier, err := f.verifier(ctx, log)
	switch {
	case err != nil:
		return nil, nil, err
	case verifier != nil:
		api = auth.NewGuard(verifier, log, metrics)
		return api, api, nil
	case f.Auth == "" && !loopback(adminAddr):
		return nil, auth.NewGuard(auth.Closed("--auth is not set, so this address answers only /healthz, /readyz and "+
			"/metrics: start tidemark with --auth tokens and --tokens-file, or with --auth jwt and --jwks"), log,
			metrics), nil
	}
	f.warn(log, "--admin-addr", adminAddr)
	return nil, nil, nil
}

// verifier returns nil where no tokens are needed.
func (f authFlags) verifier(ctx context.Context, log *slog.Logger) (auth.Verifier, error) {
	secret, err := secret(jwtSecretVariable, "--jwt-secret-file", f.JWTSecretFile)
	if err != nil {
		return nil, err
	}
	tokens, jwt := f.TokensFile != "", f.JWKS != "" || f.JWTIssuer != "" || f.JWTAudience != "" || f.JWTSecretFile != ""
	switch {
	case tokens && f.Auth != authTokens:
		return nil, usagef("--tokens-file needs --auth tokens")
	case jwt && f.Auth != authJWT:
		return nil, usagef("--jwks and --jwt-… need --auth jwt")
	case f.Auth == authTokens && !tokens:
		return nil, usagef("--auth tokens needs --tokens-file: see tidemark token hash")
	case f.Auth == authTokens:
		verifier, err := auth.NewTokens(f.TokensFile, log)
		if err != nil {
			return nil, usagef("--tokens-file: %w", err)
		}
		return verifier, nil
	case f.Auth != authJWT:
		return nil, nil
	case f.JWTIssuer == "" || f.JWTAudience == "":
		return nil, usagef("--auth jwt needs --jwt-issuer and --jwt-audience")
	case f.JWKS == "" && secret == "":
		return nil, usagef("--auth jwt needs --jwks, --jwt-secret-file or %s", jwtSecretVariable)
	}
	conf := auth.JWTConfig{Issuer: f.JWTIssuer, Audience: f.JWTAudience, Keys: f.JWKS, Log: log}
	if secret != "" {
		conf.Secret = []byte(secret)
	}
	verifier, err := auth.NewJWT(ctx, conf)
	if err != nil {
		return nil, usagef("--auth jwt: %w", err)
	}
	return verifier, nil
}

// tokens returns the doctor's check of these settings; nil if there are none.
func (f authFlags) tokens() func(context.Context) (string, error) {
	if f == (authFlags{}) || f.Auth == authNone {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		verifier, err := f.verifier(ctx, slog.New(slog.DiscardHandler))
		if err != nil {
			return "", err
		}
		switch v := verifier.(type) {
		case *auth.Tokens:
			return fmt.Sprintf("%d tokens in %s", v.Len(), f.TokensFile), nil
		case *auth.JWT:
			n, err := v.LoadKeys(ctx)
			return fmt.Sprintf("JWTs of %s for %s: %d public keys, HS256: %v", f.JWTIssuer, f.JWTAudience, n,
				v.HasSecret()), err
		}
		return "", usagef("--auth is not set")
	}
}
