package views

import _ "embed"

// openAPI describes this API; a test holds the routes and parameters to it.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) getOpenAPI(*call) (*answer, error) { return &answer{body: openAPI}, nil }
