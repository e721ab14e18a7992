import { Controller, Delete, Get, HttpCode, Param } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import type { DeviceView } from './device.js';
import { FleetService } from './fleet.service.js';

@ApiTags('devices')
@Controller('api/v1/devices')
export class DeviceController {
  constructor(private readonly fleet: FleetService) {}

  @Get()
  @ApiOkResponse({ description: 'Every device, by name.' })
  list(): Promise<DeviceView[]> {
    return this.fleet.list();
  }

  @Get(':id')
  @ApiOkResponse({ description: 'The device.' })
  get(@Param('id') id: string): Promise<DeviceView> {
    return this.fleet.get(id);
  }

  /** Takes the device out of the fleet: its certificate is refused from now on. */
  @Delete(':id')
  @HttpCode(204)
  @ApiNoContentResponse({ description: 'The device is removed.' })
  remove(@Param('id') id: string): Promise<void> {
    return this.fleet.remove(id);
  }
}
