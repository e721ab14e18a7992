import { Modal } from '@mantine/core';
import { JoinSteps } from './join-steps.js';

export function AddDevice({ opened, onClose }: { readonly opened: boolean; readonly onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Add a device" size="lg" closeButtonProps={{ 'aria-label': 'Close' }}>
      <JoinSteps />
    </Modal>
  );
}
