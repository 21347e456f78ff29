// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/seed-541fafe0/zk"

func answerReconfig(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	return b, 0, zk.ErrReconfigDisabled
}
